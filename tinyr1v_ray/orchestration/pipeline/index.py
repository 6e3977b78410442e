"""`recipe.json`: the stages of a recipe, how far they are, and which models come out. The report reads nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from tinyr1v_ray.config.base import Settings
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.orchestration.pipeline.identity import MINIATURE
from tinyr1v_ray.orchestration.pipeline.stages import BASE, Graph, Model, Stage
from tinyr1v_ray.telemetry.records import replace_file, to_json

INDEX = "recipe.json"


class State(StrEnum):
    """How far a stage is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Index:
    """The states of a graph's stages, written whenever one changes.

    That a stage is done is noted beside its folder, so that it is found again by a recipe that was changed and changed
    back.
    """

    def __init__(self, folder: Path, config: PipelineConfig, graph: Graph) -> None:
        self._folder, self._config, self._graph = folder, config, graph
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._begun_s: dict[str, float] = {}
        notes = {stage.id: _read_note(stage) for stage in graph.stages}
        self.states = {name: State.DONE if note else State.WAITING for name, note in notes.items()}
        self._seconds: dict[str, float] = {name: float(note.get("seconds", 0.0)) for name, note in notes.items()}

    def begin(self, stage: Stage) -> None:
        """The stage runs from now on."""
        self._begun_s[stage.id] = time.monotonic()
        self._set(stage, State.RUNNING)

    def finish(self, stage: Stage) -> float:
        """The stage's result is whole; returns its seconds, those of killed attempts not counted."""
        self._seconds[stage.id] = time.monotonic() - self._begun_s[stage.id]
        note = {"fingerprint": stage.fingerprint, "seconds": round(self._seconds[stage.id], 3)}
        replace_file(_note(stage), to_json(note) + "\n")
        self._set(stage, State.DONE)
        return self._seconds[stage.id]

    def fail(self, stage: Stage) -> None:
        """The stage ended without a result."""
        self._set(stage, State.FAILED)

    def write(self) -> None:
        """Replace `recipe.json`."""
        rows = {
            "name": self._config.name,
            "started": self._started,
            "miniature": self._config.base == MINIATURE,
            "stages": [self._stage_row(stage) for stage in self._graph.stages],
            "models": [self._model_row(model) for model in self._graph.models],
        }
        replace_file(self._folder / INDEX, to_json(rows, indent=2) + "\n")

    def _set(self, stage: Stage, state: State) -> None:
        self.states[stage.id] = state
        self.write()

    def _stage_row(self, stage: Stage) -> dict[str, Any]:
        return {
            "id": stage.id,
            "kind": stage.kind,
            "name": stage.name,
            "seed": stage.seed,
            "folder": self._shown(stage.folder),
            "fingerprint": stage.fingerprint,
            "needs": list(stage.needs),
            "state": str(self.states[stage.id]),
            "seconds": self._seconds[stage.id] if self.states[stage.id] is State.DONE else None,
        }

    def _model_row(self, model: Model) -> dict[str, Any]:
        stages = {stage.id: stage for stage in self._graph.stages}
        maker = stages.get(model.made_by)
        evaluation = stages[self._graph.evaluated_by[model.name, model.seed]]
        trained = maker if maker and maker.kind == "train" else None
        return {
            "name": model.name,
            "seed": model.seed,
            **describe(model, maker.settings if maker else None, self._config),
            "folder": self._shown(model.folder),
            "train": self._shown(trained.folder) if trained else None,
            "merge": self._shown(model.folder / "merge.json") if maker and maker.kind == "merge" else None,
            "evaluation": self._shown(evaluation.folder),
        }

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self._folder)) if path.is_relative_to(self._folder) else str(path)


def describe(model: Model, settings: Settings | None, config: PipelineConfig) -> dict[str, Any]:
    """What a model is in the report: its role, how it was made, what it was trained on."""
    if isinstance(settings, MergeConfig):
        method = settings.recipes[model.name].method
        return {"role": "merged", "algorithm": method, "domains": [], "boost": None, "start_from": ""}
    if not isinstance(settings, TrainConfig):
        return {"role": BASE, "algorithm": "", "domains": [], "boost": None, "start_from": ""}
    algorithm = settings.algorithm.name
    domains = [source.rpartition(":")[2] for source in settings.data.train]
    return {
        "role": "specialist" if model.name in config.merge.experts else "baseline",
        "algorithm": algorithm,
        "domains": domains if len(domains) > 1 else [settings.data.domain],
        "boost": settings.algorithm.lipo.boost if algorithm == "lipo" else None,
        "start_from": config.trainings[model.name].start_from,
    }


def _note(stage: Stage) -> Path:
    return stage.folder.with_name(f"{stage.folder.name}.done.json")


def _read_note(stage: Stage) -> Mapping[str, Any]:
    """Empty when the stage is not done, or its folder is gone."""
    try:
        note = json.loads(_note(stage).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    same = isinstance(note, dict) and note.get("fingerprint") == stage.fingerprint and stage.folder.is_dir()
    return note if same else {}
