"""A training as a stage of a recipe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tinyr1v_ray.cluster.placement import Placement, plan_placement
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.model_folder import MINIATURE
from tinyr1v_ray.jobs.recipe.sections import parsed, refuse_owned
from tinyr1v_ray.jobs.recipe.stage import (
    Inputs,
    RecipeModel,
    Stage,
    has_weights,
    stage_fingerprint,
    stage_folder,
    without,
)
from tinyr1v_ray.jobs.train.inputs import check_settings, load_inputs
from tinyr1v_ray.jobs.train.job import TrainRequest, train_specialist
from tinyr1v_ray.telemetry.display import Display
from tinyr1v_ray.telemetry.run_folder import CONFIG_FILE, FREE_ON_RESUME

_OWNED = {
    "run.name": "the training's name",
    "run.folder": "folder",
    "run.seed": "seeds",
    "model.path": "base, or start_from",
    "checkpoint.export": "nothing: it is always written",
    "telemetry.progress": "progress",
    "telemetry.page_port": "page_port",
    "cluster": "cluster",
}
"""Settings that the recipe makes itself -> what to set instead."""


def train_settings(config: PipelineConfig, name: str, seed: int, start: Path) -> TrainConfig:
    """One training's settings, from the model in `start`; raises ConfigError that names the training."""
    for where, tree in (("train", config.train), (f"trainings.{name}.settings", config.trainings[name].settings)):
        refuse_owned(where, tree, _OWNED)
    fixed = {
        "run": {"name": name, "seed": seed},
        "model": {"path": str(start)},
        "checkpoint": {"export": True},  # what the merge and the evaluation read
        "cluster": config.cluster.model_dump(mode="json"),
    }
    return parsed(TrainConfig, f"trainings.{name}", config.train, config.trainings[name].settings, fixed)


class TrainStage(Stage[TrainConfig]):
    """One `tinyr1v train`; its result is the exported model."""

    kind = "train"
    typical_s = 120.0

    @classmethod
    def build(cls, config: PipelineConfig, name: str, start: RecipeModel, inputs: Inputs) -> Self:
        """The stage that trains `name` from the model `start`, with that model's seed."""
        settings = train_settings(config, name, start.seed, start.folder)
        read = {source: inputs.source(source) for source in (*settings.data.train, *settings.data.evaluation)}
        own = {
            "reward.function": settings.reward.function,
            "algorithm.function": settings.algorithm.function,
            "model.family": settings.model.family,
        }
        read |= {setting: inputs.function(setting, path) for setting, path in own.items() if path}
        same = without(settings, (*FREE_ON_RESUME, "run.name", "run.folder", "model.path"))
        same["run"]["num_steps"] = settings.run.num_steps  # a resumed run may grow longer, a finished stage is as long
        digest = stage_fingerprint(same, base=start.identity, inputs=read)
        folder = stage_folder(config, cls, name, start.seed, digest)
        run = settings.run.model_copy(update={"name": folder.name, "folder": str(folder.parent)})
        needs = (start.made_by,) if start.made_by else ()
        return cls(name, start.seed, needs, settings.model_copy(update={"run": run}), digest, folder)

    @property
    def result(self) -> Path:
        """The exported model."""
        return self.folder / "export"

    @property
    def num_steps(self) -> int:
        """From the model that it starts from."""
        return self.settings.run.num_steps

    @property
    def placement(self) -> Placement:
        """Engines, scorers and learner ranks."""
        settings = self.settings
        return plan_placement(settings.rollout, settings.reward, settings.learner, settings.placement)

    def is_whole(self) -> bool:
        """Whether the export is there."""
        return (self.result / "config.json").is_file() and has_weights(self.result)

    def check(self) -> None:
        """Refuse at once what needs neither a cluster nor the data's contents."""
        check_settings(self.settings)

    async def run(self, display: Display, command: Sequence[str]) -> None:
        """Train to the last step."""
        inputs = await asyncio.to_thread(load_inputs, self.settings)
        resume = (self.folder / CONFIG_FILE).is_file()
        request = TrainRequest(self.settings, resume, allow_previous=True, command=command)
        await train_specialist(request, inputs, display)

    def describe(self, model: RecipeModel, config: PipelineConfig) -> dict[str, Any]:
        """A specialist if it is merged, else a baseline."""
        algorithm = self.settings.algorithm
        return {
            "role": "specialist" if model.name in config.merge.experts else "baseline",
            "algorithm": algorithm.name,
            "domains": self._domains(config.trainings[model.name].domains),
            "boost": algorithm.lipo.boost if algorithm.name == "lipo" else None,
            "start_from": config.trainings[model.name].start_from,
            "train": self.folder,
        }

    def _domains(self, named: Sequence[str]) -> list[str]:
        """As named in the recipe, else as the sources of the miniature say, else the one that all items have."""
        data, prefix = self.settings.data, f"{MINIATURE}:"
        of_sources = [text.removeprefix(prefix) for text in data.train if text.startswith(prefix)]
        return list(dict.fromkeys(named or of_sources or [data.domain]))
