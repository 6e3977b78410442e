"""An evaluation as a stage of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tinyr1v_ray.cluster.placement import Placement, plan_engines
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.evaluation.benchmarks.stored import SCORES
from tinyr1v_ray.jobs.evaluate.inputs import named_benchmarks
from tinyr1v_ray.jobs.evaluate.job import evaluate_model
from tinyr1v_ray.jobs.recipe.sections import parsed, refuse_owned
from tinyr1v_ray.jobs.recipe.stage import Inputs, RecipeModel, Stage, stage_fingerprint, stage_folder, without
from tinyr1v_ray.telemetry.display import Display

_OWNED = {
    "model.path": "base and trainings",
    "output": "folder",
    "sampling.seed": "seeds",
    "progress": "progress",
    "cluster": "cluster",
}


class EvaluateStage(Stage[EvaluateConfig]):
    """One `tinyr1v evaluate` of one model; its result is the file of scores."""

    kind = "evaluate"
    typical_s = 30.0

    @classmethod
    def build(cls, config: PipelineConfig, model: RecipeModel, inputs: Inputs) -> Self:
        """The stage that evaluates a model. Greedy answers do not depend on the seed."""
        fixed = {
            "model": {"path": str(model.folder)},
            "output": "named below",
            "cluster": config.cluster.model_dump(mode="json"),
        }
        training = config.trainings.get(model.name)
        of_model = training.evaluate if training else {}
        for where, tree in (("evaluate", config.evaluate), (f"trainings.{model.name}.evaluate", of_model)):
            refuse_owned(where, tree, _OWNED)
        settings = parsed(EvaluateConfig, "evaluate", config.evaluate, of_model, fixed)
        if settings.sampling.temperature > 0:
            sampling = settings.sampling.model_copy(update={"seed": model.seed})
            settings = settings.model_copy(update={"sampling": sampling})
        read = {each.name: inputs.benchmark(settings, each.name) for each in named_benchmarks(settings)}
        same = without(settings, ("output", "cluster.", "progress", "engine.", "data", "model.path"))
        digest = stage_fingerprint(same, model=model.identity, inputs=read)
        folder = stage_folder(config, cls, model.name, model.seed, digest)
        settings = settings.model_copy(update={"output": str(folder)})
        needs = (model.made_by,) if model.made_by else ()
        return cls(model.name, model.seed, needs, settings, digest, folder)

    @property
    def result(self) -> Path:
        """The scores are written last."""
        return self.folder / SCORES

    @property
    def placement(self) -> Placement:
        """Engines alone."""
        return plan_engines(self.settings.engine)

    def is_whole(self) -> bool:
        """Whether the scores are there."""
        return self.result.is_file()

    async def run(self, display: Display, command: Sequence[str]) -> None:
        """Answer what is not answered yet, and grade."""
        await evaluate_model(self.settings, display)

    def describe(self, model: RecipeModel, config: PipelineConfig) -> dict[str, Any]:
        """It makes no model."""
        raise TypeError(f"stage {self.id} makes no model")
