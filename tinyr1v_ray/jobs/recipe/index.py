"""`recipe.json`: the stages of a recipe, how far they are, and which models come out. The report reads nothing else."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.data.model_folder import MINIATURE
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import to_json
from tinyr1v_ray.jobs.recipe.graph import Graph
from tinyr1v_ray.jobs.recipe.stage import BASE, AnyStage, RecipeModel
from tinyr1v_ray.report.recipe import INDEX, RecipeIndex, RecipeModelRow, RecipeStageRow, StudyRow


class State(StrEnum):
    """How far a stage is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Index:
    """The states of a graph's stages, written whenever one changes.

    A note beside each stage's folder says of which results the stage was made, by a name that every result gets anew.
    So a stage is found again by a recipe that was changed and changed back, but not when something that it was made of
    has been made again since: training twice does not give the same model.
    """

    def __init__(self, folder: Path, config: PipelineConfig, graph: Graph) -> None:
        self._folder, self._config, self._graph = folder, config, graph
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._begun_s: dict[str, float] = {}
        self._results: dict[str, str] = {}
        self.states: dict[str, State] = {}
        self._seconds: dict[str, float] = {}
        for stage in graph.stages:
            note = _read_note(stage)
            done = bool(note.get("result")) and note.get("made_of") == self._made_of(stage) and stage.is_whole()
            self.states[stage.id] = State.DONE if done else State.WAITING
            if done:
                self._results[stage.id], seconds = str(note["result"]), note.get("seconds")
                self._seconds[stage.id] = float(seconds) if isinstance(seconds, int | float) else 0.0

    async def begin(self, stage: AnyStage) -> None:
        """The stage runs from now on, with what a killed attempt left; what it made of other results is removed, and
        so is what is damaged.

        Raises RunFolderError for a folder that it has no note of, or that cannot be removed.
        """
        made_of = self._made_of(stage)
        await asyncio.to_thread(_clear, stage, made_of)  # a model folder takes a while
        self._write_note(stage, {"made_of": made_of})
        self._begun_s[stage.id] = time.monotonic()
        self._set(stage, State.RUNNING)

    def finish(self, stage: AnyStage) -> float:
        """The stage's result is whole; returns its seconds, those of killed attempts not counted."""
        seconds = time.monotonic() - self._begun_s[stage.id]
        self._results[stage.id], self._seconds[stage.id] = secrets.token_hex(8), seconds
        note = {"made_of": self._made_of(stage), "result": self._results[stage.id], "seconds": round(seconds, 3)}
        self._write_note(stage, note)
        self._set(stage, State.DONE)
        return seconds

    def give_up(self, stage: AnyStage, error: BaseException) -> None:
        """The stage ended without a result: it failed, or was interrupted and waits to go on."""
        self._set(stage, State.FAILED if isinstance(error, Exception) else State.WAITING)

    def write(self) -> None:
        """Replace `recipe.json`."""
        index = RecipeIndex(
            name=self._config.name,
            started=self._started,
            miniature=self._config.base == MINIATURE,
            stages=[self._stage_row(stage) for stage in self._graph.stages],
            models=[self._model_row(model) for model in self._graph.models],
            study=self._study_row(),
        )
        replace_file(self._folder / INDEX, index.model_dump_json(indent=2) + "\n")

    def _study_row(self) -> StudyRow | None:
        study = self._config.study
        if not study.reference:
            return None
        methods = {name: list(trainings) for name, trainings in study.methods.items()}
        return StudyRow(reference=study.reference, margin=study.margin, methods=methods)

    def _made_of(self, stage: AnyStage) -> dict[str, str]:
        """The results that the stage needs, by stage; empty names for those that are not there yet."""
        return {"fingerprint": stage.fingerprint, **{need: self._results.get(need, "") for need in stage.needs}}

    def _write_note(self, stage: AnyStage, note: Mapping[str, Any]) -> None:
        replace_file(_note(stage), to_json(note) + "\n")

    def _set(self, stage: AnyStage, state: State) -> None:
        self.states[stage.id] = state
        self.write()

    def _stage_row(self, stage: AnyStage) -> RecipeStageRow:
        return RecipeStageRow(
            id=stage.id,
            kind=stage.kind,
            name=stage.name,
            seed=stage.seed,
            folder=self._shown(stage.folder),
            fingerprint=stage.fingerprint,
            needs=list(stage.needs),
            state=str(self.states[stage.id]),
            seconds=self._seconds.get(stage.id),
        )

    def _model_row(self, model: RecipeModel) -> RecipeModelRow:
        stages = {stage.id: stage for stage in self._graph.stages}
        made = stages[model.made_by].describe(model, self._config) if model.made_by else {"role": BASE}
        evaluation = stages[self._graph.evaluated_by[model.name, model.seed]].folder
        row = {"name": model.name, "seed": model.seed, **made, "folder": model.folder, "evaluation": evaluation}
        row["steps"] = _steps(stages, model.made_by)
        shown = {key: self._shown(value) if isinstance(value, Path) else value for key, value in row.items()}
        return RecipeModelRow.model_validate(shown)

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self._folder)) if path.is_relative_to(self._folder) else str(path)


def _steps(stages: Mapping[str, AnyStage], made_by: str) -> int:
    """Training steps that went into what a stage makes, those of all experts or of earlier trainings included."""
    if not made_by:
        return 0
    return stages[made_by].num_steps + sum(_steps(stages, need) for need in stages[made_by].needs)


def _clear(stage: AnyStage, made_of: Mapping[str, str]) -> None:
    """Leave of earlier attempts what the stage can go on with."""
    note = _read_note(stage)
    if not note and stage.folder.exists():
        raise RunFolderError(
            f"{stage.folder} exists, and {_note(stage).name} beside it is missing or broken; a recipe goes on only "
            "with what it made itself; move the folder away, or put the file back"
        )
    if note.get("made_of") != made_of:
        _remove(stage.folder)
        _remove(stage.folder.with_name(f".{stage.folder.name}.partial"))
    elif not stage.is_whole():
        _remove(stage.result)


def _remove(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be removed: {error.strerror}; it is damaged, or made of results that were made again; "
            "remove it"
        ) from error


def _note(stage: AnyStage) -> Path:
    return stage.folder.with_name(f"{stage.folder.name}.stage.json")


def _read_note(stage: AnyStage) -> dict[str, Any]:
    """Empty when there is none, or none that can be read."""
    try:
        note = json.loads(_note(stage).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
