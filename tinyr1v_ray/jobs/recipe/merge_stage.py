"""A merge as a stage of a recipe."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.jobs.merge.job import prepare, run_merge_job
from tinyr1v_ray.jobs.merge.progress import MergeProgress
from tinyr1v_ray.jobs.recipe.sections import parsed, refuse_owned
from tinyr1v_ray.jobs.recipe.stage import (
    Inputs,
    RecipeModel,
    Stage,
    Stopped,
    has_weights,
    run_stoppable,
    stage_fingerprint,
    stage_folder,
    without,
)
from tinyr1v_ray.merging.session import BundleResult
from tinyr1v_ray.telemetry.display import Display

_OWNED = {"job.ray_address": "cluster.address"}
_REPORT = "merge.json"


class MergeStage(Stage[MergeConfig]):
    """One `tinyr1v merge` of all methods; its result is a folder with a model for each."""

    kind = "merge"
    typical_s = 30.0

    @classmethod
    def build(cls, config: PipelineConfig, seed: int, experts: Sequence[RecipeModel], inputs: Inputs) -> Self:
        """The stage that merges the trained `experts` of a seed."""
        merge = config.merge
        tree = {
            "base": config.base,
            "experts": [str(expert.folder) for expert in experts],
            "output": "named below",
            "methods": {name: method.model_dump(mode="json") for name, method in merge.methods.items()},
            "job": merge.job.model_dump(mode="json"),
        }
        refuse_owned("merge", tree, _OWNED)
        settings = parsed(MergeConfig, "merge", tree)
        same = without(settings, ("output", "base", "experts", "job."))
        same["arithmetic"] = [settings.job.device, settings.job.threads_per_task]
        read = [inputs.model(config.base), *(expert.identity for expert in experts)]
        custom = [method.function for method in merge.methods.values() if method.function]
        read += [inputs.function("method.function", path) for path in custom]
        digest = stage_fingerprint(same, inputs=read)
        folder = stage_folder(config, cls, "specialists", seed, digest)
        settings = settings.model_copy(update={"output": str(folder)})
        return cls("specialists", seed, tuple(expert.made_by for expert in experts), settings, digest, folder)

    @property
    def result(self) -> Path:
        """All of it appears at once."""
        return self.folder

    @property
    def placement(self) -> None:
        """It fits itself to the cluster."""
        return None

    def is_whole(self) -> bool:
        """Whether every merged model is there."""
        folders = [self.folder / name for name in self.settings.methods]
        return all((folder / _REPORT).is_file() and has_weights(folder) for folder in folders)

    async def run(self, display: Display, command: Sequence[str]) -> None:
        """Merge in a thread; when the recipe ends, it stops after the tensor at hand, and goes on there the next
        time."""
        await run_stoppable(lambda stop: merge_until(self.settings, display, stop))

    def describe(self, model: RecipeModel, config: PipelineConfig) -> dict[str, Any]:
        """A merged model is told by its method."""
        method = self.settings.methods[model.name]
        return {"role": "merged", "algorithm": method.name, "merge": model.folder / _REPORT}


class _StoppableProgress(MergeProgress):
    """Ends the merge from within when it is told to."""

    def __init__(self, display: Display, stop: threading.Event) -> None:
        super().__init__(display)
        self._stop = stop

    def on_result(self, result: BundleResult) -> None:
        """The result is in the journal already."""
        super().on_result(result)
        if self._stop.is_set():
            raise Stopped


def merge_until(settings: MergeConfig, display: Display, stop: threading.Event) -> None:
    """Merge; raises Stopped after the tensor at hand when told to."""
    prepared = prepare(settings)
    for line in prepared.conflicts:
        display.line(f"conflict: {line}")
    with _StoppableProgress(display, stop) as progress:
        summary = run_merge_job(prepared, progress)
    for line in summary.warnings:
        display.line(f"warning: {line}")
