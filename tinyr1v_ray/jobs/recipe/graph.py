"""A recipe as a graph of stages, each with resolved settings and a fingerprint of all that its result depends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tinyr1v_ray.config.custom_function import function_sha256
from tinyr1v_ray.config.kinds import values_at
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.files.hashing import value_sha256
from tinyr1v_ray.jobs.recipe.dial_stage import DialStage
from tinyr1v_ray.jobs.recipe.evaluate_stage import EvaluateStage
from tinyr1v_ray.jobs.recipe.identity import benchmark_identity, model_identity, source_identity
from tinyr1v_ray.jobs.recipe.merge_stage import MergeStage
from tinyr1v_ray.jobs.recipe.stage import BASE, AnyStage, Inputs, RecipeModel
from tinyr1v_ray.jobs.recipe.train_stage import TrainStage


@dataclass(frozen=True)
class Graph:
    """All stages, each after those it needs, and the models in the order of the report."""

    stages: tuple[AnyStage, ...]
    models: tuple[RecipeModel, ...]
    evaluated_by: Mapping[tuple[str, int], str]
    """(model name, seed) -> id of the stage that evaluates it."""
    remarks: tuple[str, ...] = ()
    """What a reader of the configuration may not expect."""


def build_graph(config: PipelineConfig, read_inputs: bool = True) -> Graph:
    """Resolve every stage. Raises ConfigError that names the part of the recipe, DataError for missing inputs.

    Without `read_inputs` they need not be here: their names stand for them, and the fingerprints find no stage again.
    """
    inputs = Inputs(_by_name, _by_name, _by_name, _by_name)
    if read_inputs:
        own_family = next(values_at(config.train, {"family"}), "")
        of_model = partial(model_identity, own_family=own_family)
        inputs = Inputs(of_model, source_identity, function_sha256, benchmark_identity)
    return _Builder(config, inputs).build()


class _Builder:
    """Stages by id, in the order in which they are added."""

    def __init__(self, config: PipelineConfig, inputs: Inputs) -> None:
        self._config, self._inputs = config, inputs
        self._base = inputs.model(config.base)
        self._stages: dict[str, AnyStage] = {}

    def build(self) -> Graph:
        models: list[RecipeModel] = []
        evaluated_by: dict[tuple[str, int], str] = {}
        for seed in self._config.seeds:
            of_seed = list(self._models(seed))
            for model in of_seed:
                evaluated_by[model.name, seed] = self._evaluation(model)
            models += of_seed
        return Graph(tuple(self._stages.values()), tuple(models), evaluated_by, tuple(_remarks(self._config)))

    def _models(self, seed: int) -> Iterator[RecipeModel]:
        """The models to be evaluated; adds the stages that make them."""
        yield self._base_model(seed)
        trained: dict[str, RecipeModel] = {}
        for name, training in self._config.trainings.items():
            if training.seeds is None or seed in training.seeds:
                model = self._training(name, seed, trained)
                if training.evaluated:
                    yield model
        if self._config.merge.experts:
            yield from self._merge(seed, trained)
        if self._config.dial.experts:
            self._dial(trained)

    def _base_model(self, seed: int) -> RecipeModel:
        return RecipeModel(BASE, seed, Path(self._config.base), self._base)

    def _training(self, name: str, seed: int, trained: dict[str, RecipeModel]) -> RecipeModel:
        if name not in trained:
            start_from = self._config.trainings[name].start_from
            start = self._training(start_from, seed, trained) if start_from else self._base_model(seed)
            stage = self._add(TrainStage.build(self._config, name, start, self._inputs))
            trained[name] = RecipeModel(name, seed, stage.result, stage.fingerprint, stage.id)
        return trained[name]

    def _merge(self, seed: int, trained: dict[str, RecipeModel]) -> Iterator[RecipeModel]:
        merge = self._config.merge
        experts = [trained[name] for name in merge.experts]
        stage = self._add(MergeStage.build(self._config, seed, experts, self._inputs))
        for name in merge.methods:
            yield RecipeModel(name, seed, stage.result / name, value_sha256([stage.fingerprint, name]), stage.id)

    def _dial(self, trained: Mapping[str, RecipeModel]) -> None:
        """A stage for each overlap of each case; it makes no model."""
        dial = self._config.dial
        for name, case in dial.named_cases.items():
            experts = [(trained[expert], self._domain(trained[expert])) for expert in case.experts]
            shared = trained[dial.shared] if case.planted else None
            for overlap in dial.overlaps if case.planted else (0.0,):
                self._add(DialStage.build(self._config, (name, overlap), experts, shared, self._inputs))

    def _domain(self, model: RecipeModel) -> str:
        """The one domain that it was trained on; empty for several."""
        domains = self._stages[model.made_by].describe(model, self._config)["domains"]
        return domains[0] if len(domains) == 1 else ""

    def _evaluation(self, model: RecipeModel) -> str:
        """The base's greedy answers are drawn once for all seeds.

        Of trained models nothing is shared: equal settings do not make equal models.
        """
        stage = EvaluateStage.build(self._config, model, self._inputs)
        for known in self._stages.values():
            if (known.fingerprint, known.needs) == (stage.fingerprint, stage.needs):
                return known.id
        return self._add(stage).id

    def _add(self, stage: AnyStage) -> AnyStage:
        known = self._stages.setdefault(stage.id, stage)
        if known.fingerprint != stage.fingerprint:
            raise ConfigError(f"{stage.id} means two stages; a name means one model and a seed comes once; rename one")
        return known


def _remarks(config: PipelineConfig) -> Iterator[str]:
    for name, training in config.trainings.items():
        if training.seeds is not None and not set(training.seeds) & set(config.seeds):
            yield (
                f"trainings.{name} is left out: its seeds {list(training.seeds)} are none of the recipe's "
                f"{list(config.seeds)}"
            )
    if config.study.reference and len(config.seeds) == 1:
        yield "study has one seed, which decides nothing: another training may come out otherwise; give more seeds"


def _by_name(*names: object) -> str:
    """An input's identity where it is not read: what it is called, which comes last."""
    return str(names[-1])
