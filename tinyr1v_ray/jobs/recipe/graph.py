"""A recipe as a graph of stages, each with resolved settings and a fingerprint of all that its result depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tinyr1v_ray.config.base import Settings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.own_function import function_sha256
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.evaluation.benchmarks.load import find_file
from tinyr1v_ray.evaluation.benchmarks.registry import MINIATURE as MINIATURE_BENCHMARK
from tinyr1v_ray.files.hashing import value_sha256
from tinyr1v_ray.jobs.evaluate.inputs import named_benchmarks
from tinyr1v_ray.jobs.recipe.identity import (
    content,
    model_identity,
    plain,
    source_identity,
    without,
)
from tinyr1v_ray.jobs.recipe.sections import (
    OWNED_BY_EVALUATIONS,
    OWNED_BY_MERGES,
    OWNED_BY_TRAININGS,
    parsed,
    refuse_owned,
)
from tinyr1v_ray.telemetry.run_folder import FREE_ON_RESUME

BASE = "base"
STAGES = "stages"
EXPORT = "export"
VERSION = version("tinyr1v-ray")


@dataclass(frozen=True)
class Stage:
    """One node: what it does, what it needs, and where its result goes.

    `folder` is named after the fingerprint, so a stage with other settings or inputs is another folder, and a finished
    one is found again.
    """

    kind: str
    name: str
    seed: int
    needs: tuple[str, ...]
    settings: Settings
    fingerprint: str
    folder: Path

    @property
    def id(self) -> str:
        """Its name within the recipe, the same whatever the settings."""
        return stage_id(self.kind, self.name, self.seed)


@dataclass(frozen=True)
class Model:
    """A model that comes out of the recipe, or its base."""

    name: str
    seed: int
    folder: Path
    identity: str
    made_by: str = ""
    """Id of the stage that makes it; empty for the base."""


@dataclass(frozen=True)
class Graph:
    """All stages, each after those it needs, and the models in the order of the report."""

    stages: tuple[Stage, ...]
    models: tuple[Model, ...]
    evaluated_by: Mapping[tuple[str, int], str]
    """(model name, seed) -> id of the stage that evaluates it."""
    remarks: tuple[str, ...] = ()
    """What a reader of the configuration may not expect."""


def stage_id(kind: str, name: str, seed: int) -> str:
    """
    >>> stage_id("train", "math", 0)
    'train/math/seed0'
    """
    return f"{kind}/{name}/seed{seed}"


def recipe_folder(config: PipelineConfig) -> Path:
    """`runs/NAME`, absolute."""
    return (Path(config.folder) / config.name).absolute()


def build_graph(config: PipelineConfig, read_inputs: bool = True) -> Graph:
    """Resolve every stage. Raises ConfigError that names the part of the recipe, DataError for missing inputs.

    Without `read_inputs` they need not be here: their names stand for them, and the fingerprints find no stage again.
    """
    return _Builder(config, read_inputs).build()


def train_settings(config: PipelineConfig, name: str, seed: int, start: Path) -> TrainConfig:
    """One training's settings, from the model in `start`; raises ConfigError that names the training."""
    for where, tree in (("train", config.train), (f"trainings.{name}.settings", config.trainings[name].settings)):
        refuse_owned(where, tree, OWNED_BY_TRAININGS)
    fixed = {
        "run": {"name": name, "seed": seed},
        "model": {"path": str(start)},
        "checkpoint": {"export": True},  # what the merge and the evaluation read
        "cluster": config.cluster.model_dump(mode="json"),
    }
    return parsed(TrainConfig, f"trainings.{name}", config.train, config.trainings[name].settings, fixed)


class _Builder:
    """Stages by id, in the order in which they are added."""

    def __init__(self, config: PipelineConfig, read_inputs: bool) -> None:
        self._config = config
        self._of_model: Callable[[str], str] = model_identity if read_inputs else _by_name
        self._of_source: Callable[[str], str] = source_identity if read_inputs else _by_name
        self._of_function: Callable[[str, str], str] = function_sha256 if read_inputs else _by_name
        self._of_benchmark: Callable[[EvaluateConfig, str], str] = _benchmark_identity if read_inputs else _by_name
        self._folder = recipe_folder(config) / STAGES
        self._stages: dict[str, Stage] = {}

    def build(self) -> Graph:
        models: list[Model] = []
        evaluated_by: dict[tuple[str, int], str] = {}
        for seed in self._config.seeds:
            of_seed = list(self._models(seed))
            for model in of_seed:
                evaluated_by[model.name, seed] = self._evaluation(model)
            models += of_seed
        seeds = self._config.seeds
        remarks = tuple(
            f"trainings.{name} is left out: its seeds {list(training.seeds)} are none of the recipe's {list(seeds)}"
            for name, training in self._config.trainings.items()
            if training.seeds is not None and not set(training.seeds) & set(seeds)
        )
        return Graph(tuple(self._stages.values()), tuple(models), evaluated_by, remarks)

    def _models(self, seed: int) -> Iterator[Model]:
        """The models to be evaluated; adds the stages that make them."""
        config = self._config
        yield Model(BASE, seed, Path(config.base), self._of_model(config.base))
        trained: dict[str, Model] = {}
        for name, training in config.trainings.items():
            if training.seeds is None or seed in training.seeds:
                model = self._training(name, seed, trained)
                if training.evaluated:
                    yield model
        if config.merge.experts:
            yield from self._merge(seed, trained)

    def _training(self, name: str, seed: int, trained: dict[str, Model]) -> Model:
        if name in trained:
            return trained[name]
        training = self._config.trainings[name]
        start = Model(BASE, seed, Path(self._config.base), self._of_model(self._config.base))
        if training.start_from:
            start = self._training(training.start_from, seed, trained)
        settings = train_settings(self._config, name, seed, start.folder)
        inputs = {source: self._of_source(source) for source in (*settings.data.train, *settings.data.evaluation)}
        if settings.reward.function:
            inputs["reward.function"] = self._of_function("reward.function", settings.reward.function)
        same = without(plain(settings), (*FREE_ON_RESUME, "run.name", "run.folder", "model.path"))
        same["run"]["num_steps"] = settings.run.num_steps  # a resumed run may grow longer, a finished stage is as long
        digest = value_sha256({"version": VERSION, "base": start.identity, "inputs": inputs, "settings": same})
        folder = self._stage_folder("train", name, seed, digest)
        run = settings.run.model_copy(update={"name": folder.name, "folder": str(folder.parent)})
        settings = settings.model_copy(update={"run": run})
        needs = (start.made_by,) if start.made_by else ()
        stage = self._add(Stage("train", name, seed, needs, settings, digest, folder))
        trained[name] = Model(name, seed, stage.folder / EXPORT, digest, stage.id)
        return trained[name]

    def _merge(self, seed: int, trained: dict[str, Model]) -> Iterator[Model]:
        merge = self._config.merge
        experts = [trained[name] for name in merge.experts]
        tree = {
            "base": self._config.base,
            "experts": [str(expert.folder) for expert in experts],
            "output": "named below",
            "recipes": {name: recipe.model_dump(mode="json") for name, recipe in merge.recipes.items()},
            "job": merge.job.model_dump(mode="json"),
        }
        refuse_owned("merge", tree, OWNED_BY_MERGES)
        settings = parsed(MergeConfig, "merge", tree)
        same = without(plain(settings), ("output", "base", "experts", "job."))
        same["arithmetic"] = [settings.job.device, settings.job.threads_per_task]
        inputs = [self._of_model(self._config.base), *(expert.identity for expert in experts)]
        own = [recipe.function for recipe in merge.recipes.values() if recipe.function]
        inputs += [self._of_function("recipe.function", path) for path in own]
        digest = value_sha256({"version": VERSION, "inputs": inputs, "settings": same})
        folder = self._stage_folder("merge", "specialists", seed, digest)
        settings = settings.model_copy(update={"output": str(folder)})
        needs = tuple(expert.made_by for expert in experts)
        stage = self._add(Stage("merge", "specialists", seed, needs, settings, digest, folder))
        for name in merge.recipes:
            yield Model(name, seed, stage.folder / name, value_sha256([digest, name]), stage.id)

    def _evaluation(self, model: Model) -> str:
        """Greedy answers do not depend on the seed, so the base's are drawn once for all seeds.

        Of trained models nothing is shared: equal settings do not make equal models.
        """
        fixed = {
            "model": {"path": str(model.folder)},
            "output": "named below",
            "cluster": self._config.cluster.model_dump(mode="json"),
        }
        refuse_owned("evaluate", self._config.evaluate, OWNED_BY_EVALUATIONS)
        settings = parsed(EvaluateConfig, "evaluate", self._config.evaluate, fixed)
        if settings.sampling.temperature > 0:
            sampling = settings.sampling.model_copy(update={"seed": model.seed})
            settings = settings.model_copy(update={"sampling": sampling})
        inputs = {
            benchmark.name: self._of_benchmark(settings, benchmark.name) for benchmark in named_benchmarks(settings)
        }
        same = without(plain(settings), ("output", "cluster.", "progress", "engine.", "data", "model.path"))
        digest = value_sha256({"version": VERSION, "model": model.identity, "inputs": inputs, "settings": same})
        needs = (model.made_by,) if model.made_by else ()
        for stage in self._stages.values():
            if (stage.fingerprint, stage.needs) == (digest, needs):
                return stage.id
        folder = self._stage_folder("evaluate", model.name, model.seed, digest)
        settings = settings.model_copy(update={"output": str(folder)})
        return self._add(Stage("evaluate", model.name, model.seed, needs, settings, digest, folder)).id

    def _stage_folder(self, kind: str, name: str, seed: int, digest: str) -> Path:
        return self._folder / f"{kind}-{name}-seed{seed}-{digest[:8]}"

    def _add(self, stage: Stage) -> Stage:
        known = self._stages.setdefault(stage.id, stage)
        if known.fingerprint != stage.fingerprint:
            raise ConfigError(f"{stage.id} means two stages; a name means one model and a seed comes once; rename one")
        return known


def _by_name(*names: object) -> str:
    """An input's identity where it is not read: what it is called, which comes last."""
    return str(names[-1])


def _benchmark_identity(settings: EvaluateConfig, name: str) -> str:
    if name.startswith(MINIATURE_BENCHMARK):
        return source_identity(name)
    benchmark = next(of for of in named_benchmarks(settings) if of.name == name)
    return content(find_file(benchmark, Path(settings.data)))
