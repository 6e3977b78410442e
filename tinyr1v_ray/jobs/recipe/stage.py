"""What a stage of a recipe is. A kind of stage is a class in a file of its own; `graph.py` builds it."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from tinyr1v_ray.cluster.placement import Placement
from tinyr1v_ray.config.base import Settings
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.files.hashing import value_sha256
from tinyr1v_ray.telemetry.display import Display

BASE = "base"
STAGES = "stages"
_VERSION = version("tinyr1v-ray")
SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True)
class RecipeModel:
    """A model that comes out of the recipe, or its base."""

    name: str
    seed: int
    folder: Path
    identity: str
    made_by: str = ""
    """Id of the stage that makes it; empty for the base."""


@dataclass(frozen=True)
class Inputs:
    """How the content of what a recipe reads becomes part of a fingerprint: of a model, a data source, a user's
    function (with its setting), a benchmark (with an evaluation's settings)."""

    model: Callable[[str], str]
    source: Callable[[str], str]
    function: Callable[[str, str], str]
    benchmark: Callable[[Any, str], str]


@dataclass(frozen=True)
class Stage(ABC, Generic[SettingsT]):
    """One node of the graph: what it does, what it needs, and where its result goes.

    `folder` is named after the fingerprint of all that the result depends on, so a stage with other settings or inputs
    is another folder, and a finished one is found again.
    """

    name: str
    seed: int
    needs: tuple[str, ...]
    settings: SettingsT
    """Of the command that the stage stands for, resolved."""
    fingerprint: str
    folder: Path

    kind: ClassVar[str]
    typical_s: ClassVar[float]
    """How long stages of this kind take in proportion to others, for the time left."""

    @property
    def id(self) -> str:
        """Its name within the recipe, the same whatever the settings."""
        return f"{self.kind}/{self.name}/seed{self.seed}"

    @property
    @abstractmethod
    def result(self) -> Path:
        """The part of the folder that appears as a whole, when the stage ends."""

    @property
    def num_steps(self) -> int:
        """Training steps that it makes itself."""
        return 0

    @property
    @abstractmethod
    def placement(self) -> Placement | None:
        """The actors it runs with; None for one that fits itself to the cluster and runs alone."""

    @abstractmethod
    def is_whole(self) -> bool:
        """Whether what a finished stage leaves last is there."""

    def check(self) -> None:
        """Refuse at once what needs neither a cluster nor the data's contents."""

    @abstractmethod
    async def run(self, display: Display, command: Sequence[str]) -> None:
        """Make the folder whole on the cluster that this process is connected to; what a killed attempt left there is
        gone on with."""

    @abstractmethod
    def describe(self, model: RecipeModel, config: PipelineConfig) -> dict[str, Any]:
        """Of a model that this stage makes: the fields of the report's `RecipeModelRow` that say how it was made."""


AnyStage = Stage[Any]


def stage_fingerprint(settings: Mapping[str, Any], **inputs: object) -> str:
    """Of what a result depends on: settings as plain values, the content of inputs, and this package's version."""
    return value_sha256({"version": _VERSION, **inputs, "settings": settings})


def stage_folder(config: PipelineConfig, stage: type[Stage[Any]], name: str, seed: int, fingerprint: str) -> Path:
    """Where a stage of a kind goes."""
    return recipe_folder(config) / STAGES / f"{stage.kind}-{name}-seed{seed}-{fingerprint[:8]}"


def recipe_folder(config: PipelineConfig) -> Path:
    """`runs/NAME`, absolute."""
    return (Path(config.folder) / config.name).absolute()


def without(settings: Settings, left_out: Sequence[str]) -> dict[str, Any]:
    """Settings as plain values without some dotted keys, and without sections (written with a dot at the end)."""
    return _without(settings.model_dump(mode="json"), left_out, "")


def _without(tree: Mapping[str, Any], left_out: Sequence[str], prefix: str) -> dict[str, Any]:
    """
    >>> _without({"run": {"name": "a", "seed": 0}, "cluster": {"address": ""}}, ["run.name", "cluster."], "")
    {'run': {'seed': 0}}
    """
    kept: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and f"{key}." not in left_out:
            kept[name] = _without(value, left_out, f"{key}.")
        elif not isinstance(value, Mapping) and key not in left_out:
            kept[name] = value
    return kept


def has_weights(folder: Path) -> bool:
    """Whether a model's weights are in the folder."""
    return any(folder.glob("*.safetensors"))


class Stopped(Exception):
    """Work in a thread was told to stop."""


async def run_stoppable(work: Callable[[threading.Event], None]) -> None:
    """Work in a thread, which is told when the recipe ends, and then raises `Stopped` where it can be gone on with."""
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        with suppress(Stopped):
            await task
        raise
