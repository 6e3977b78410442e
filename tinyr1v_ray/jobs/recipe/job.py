"""`tinyr1v run`: carries out the stages of a recipe that are not done yet, in one process, on one cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tinyr1v_ray.cluster.connection import check_room, connected, nodes
from tinyr1v_ray.config.base import write_settings
from tinyr1v_ray.config.folders import why_not_creatable
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.jobs.recipe.graph import Graph, build_graph
from tinyr1v_ray.jobs.recipe.index import Index, State
from tinyr1v_ray.jobs.recipe.schedule import run_stages
from tinyr1v_ray.jobs.recipe.stage import STAGES, AnyStage, recipe_folder
from tinyr1v_ray.report.page import WrittenReport, write_report
from tinyr1v_ray.report.recipe import INDEX
from tinyr1v_ray.telemetry.display import Bar, Display
from tinyr1v_ray.telemetry.progress import format_duration
from tinyr1v_ray.telemetry.run_folder import CONFIG_FILE, LOCK_FILE, locked_run
from tinyr1v_ray.watch.page import page_if_asked


@dataclass(frozen=True)
class PipelineSummary:
    """Where everything lies, and how many of the stages were there already."""

    folder: Path
    report: WrittenReport
    num_stages: int
    num_found: int


def run_pipeline(config: PipelineConfig, command: Sequence[str] = ()) -> PipelineSummary:
    """Carry out what is missing and write the report. Raises the errors of `tinyr1v_ray.errors`.

    Stages are found again by a fingerprint of their settings and inputs: a finished one is not run again, a killed one
    goes on where it was, and a changed setting runs exactly what depends on it, beside what was made before. Only a
    stage whose needs were made again loses its result.
    """
    with Display(quiet=not config.progress) as display, ExitStack() as stack:
        display.line("reading the recipe's inputs")
        graph = build_graph(config)
        for line in graph.remarks:
            display.line(line)
        folder = recipe_folder(config)
        _check_folder(folder)
        stack.enter_context(page_if_asked(folder, config.page_port, display.line))
        waiting = _waiting(graph, Index(folder, config, graph))
        num_found = len(graph.stages) - len(waiting)
        display.line(f"{len(graph.stages)} stages, {num_found} of them done already")
        for stage in waiting:
            stage.check()
        if waiting:  # nothing is written before it is clear that all of them fit a cluster
            display.line("starting Ray")
            stack.enter_context(connected(config.cluster))
            for stage in waiting:
                if stage.placement is not None:
                    check_room(stage.placement, config.cluster)
        _open(folder, stack)
        write_settings(config, folder / CONFIG_FILE)
        index = Index(folder, config, graph)
        index.write()
        if waiting := _waiting(graph, index):
            asyncio.run(_RecipeRun(index, waiting, display, command).to_the_end())
        display.line("writing the report")
        return PipelineSummary(folder, write_report(folder), len(graph.stages), num_found)


def _waiting(graph: Graph, index: Index) -> list[AnyStage]:
    return [stage for stage in graph.stages if index.states[stage.id] is not State.DONE]


def _check_folder(folder: Path) -> None:
    """Raise RunFolderError when the folder cannot be written, or something else than a recipe is there."""
    if reason := why_not_creatable(folder):
        raise _unusable(folder, reason)
    others = {path.name for path in folder.iterdir()} - {CONFIG_FILE, LOCK_FILE} if folder.is_dir() else set()
    ours = (folder / INDEX).is_file() or (folder / STAGES).is_dir()
    if others and not ours:
        raise RunFolderError(
            f"{folder} holds something else (no {INDEX}); a recipe has a folder of its own; choose another name"
        )


def _open(folder: Path, stack: ExitStack) -> None:
    """Make the recipe's folder where it is missing, and hold it against other processes until the stack is left."""
    try:
        (folder / STAGES).mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked_run(folder))
    except OSError as error:
        if isinstance(error, RunFolderError):
            raise
        raise _unusable(folder, error.strerror) from error


def _unusable(folder: Path, reason: str | None) -> RunFolderError:
    return RunFolderError(
        f"{folder} cannot be used: {reason}; a recipe writes its folder; choose another name or folder"
    )


class _RecipeRun:
    """The stages that are waiting, on the cluster that this process is connected to."""

    def __init__(self, index: Index, waiting: Sequence[AnyStage], display: Display, command: Sequence[str]) -> None:
        self._index, self._waiting, self._display, self._command = index, waiting, display, command
        self._num_stages = len(index.states)
        self._num_done = self._num_stages - len(waiting)
        self._typical_s = sum(stage.typical_s for stage in waiting)
        self._typical_done_s = 0.0
        self._started_s = time.monotonic()

    async def to_the_end(self) -> None:
        """All of them."""
        placements = {stage.id: stage.placement for stage in self._waiting}
        with self._display.bar("recipe", self._num_stages) as bar:
            bar.update(self._num_done, f"{self._num_done}/{self._num_stages} stages")
            await run_stages(self._waiting, placements, nodes, lambda stage: self._carry_out(stage, bar))

    async def _carry_out(self, stage: AnyStage, bar: Bar) -> None:
        await self._index.begin(stage)
        try:
            await stage.run(self._display.labelled(f"{stage.kind} {stage.name} {stage.seed}"), self._command)
        except BaseException as error:
            self._index.give_up(stage, error)
            raise
        seconds = self._index.finish(stage)
        self._num_done += 1
        self._typical_done_s += stage.typical_s
        count = f"{self._num_done}/{self._num_stages} stages"
        if self._num_done < self._num_stages:
            count += f", about {format_duration(self._left_s())} left"
        bar.update(self._num_done, count)
        self._display.line(f"recipe: {stage.id} done after {format_duration(seconds)}; {count}")

    def _left_s(self) -> float:
        """From the time taken so far, as if stages kept to their proportions."""
        passed_s = time.monotonic() - self._started_s
        return passed_s / self._typical_done_s * (self._typical_s - self._typical_done_s)
