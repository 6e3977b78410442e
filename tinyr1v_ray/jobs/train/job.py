"""A whole training run: inputs checked, cluster joined, attempts made until the last step, held-out summary."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyr1v_ray.algorithms.advantages import build_accept, build_advantages
from tinyr1v_ray.checkpoint.manifest import RunState
from tinyr1v_ray.checkpoint.store import CheckpointFolder
from tinyr1v_ray.cluster.actors import peak_memory_mib
from tinyr1v_ray.cluster.calls import first_cause
from tinyr1v_ray.cluster.connection import check_room, connected, free_resources, num_nodes
from tinyr1v_ray.cluster.placement import plan_placement, shortage
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import EngineLostError, LearnerDiedError
from tinyr1v_ray.evaluation.held_out import (
    HeldOutAnswer,
    held_out_changes,
    held_out_metrics,
    read_answers,
    write_answers,
)
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import to_json
from tinyr1v_ray.jobs.train.answering import answer_items
from tinyr1v_ray.jobs.train.checkpoints import Checkpoints
from tinyr1v_ray.jobs.train.components import Components, started
from tinyr1v_ray.jobs.train.held_out_slice import HeldOutSlice
from tinyr1v_ray.jobs.train.inputs import RunInputs, check_cheaply, load_inputs
from tinyr1v_ray.jobs.train.watched import WatchedRollouts, WatchedScorer
from tinyr1v_ray.learner.rank import LearnerRank
from tinyr1v_ray.loop import train
from tinyr1v_ray.ports import LoopConfig, System
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.telemetry.board import shown
from tinyr1v_ray.telemetry.display import Display
from tinyr1v_ray.telemetry.events import events_kept
from tinyr1v_ray.telemetry.lessons import LessonWatch, read_lacks
from tinyr1v_ray.telemetry.progress import RunProgress
from tinyr1v_ray.telemetry.run_folder import create_run_folder, locked_run, reopen_run_folder
from tinyr1v_ray.telemetry.sinks import METRICS_FILE, open_recorder
from tinyr1v_ray.telemetry.summary import format_summary
from tinyr1v_ray.telemetry.unscored import UnscoredGuard
from tinyr1v_ray.watch.page import page_if_asked
from tinyr1v_ray.weight_sync.transports import TRANSPORTS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainRequest:
    """A configuration and how to start: anew, or from the last checkpoint (`resume`).

    `allow_previous` lets a damaged checkpoint be passed over for the one before. `command` is put on record.
    """

    config: TrainConfig
    resume: bool = False
    allow_previous: bool = False
    command: Sequence[str] = ()

    @property
    def run_folder(self) -> Path:
        """`runs/NAME`, absolute, since actors have other working folders."""
        return (Path(self.config.run.folder) / self.config.run.name).absolute()


def run_training(request: TrainRequest) -> str:
    """Train to the last step on a cluster of the configuration's choice; returns the closing summary.

    Raises the errors of `tinyr1v_ray.errors`.
    """
    config = request.config
    check_cheaply(config, request.run_folder, request.resume)
    with (
        Display(quiet=not config.telemetry.progress) as display,
        page_if_asked(request.run_folder, config.telemetry.page_port, display.line),
        ThreadPoolExecutor(max_workers=1) as reader,
    ):
        display.line("starting Ray, reading model and data")
        reading = reader.submit(load_inputs, config)  # takes as long as Ray's start, so they go side by side
        with connected(config.cluster):
            return asyncio.run(train_specialist(request, reading.result(), display))


async def train_specialist(request: TrainRequest, inputs: RunInputs, display: Display) -> str:
    """Train to the last step on the cluster that this process is connected to; returns the closing summary.

    No run folder is made before model, data and cluster are found fit.
    """
    config, run = request.config, request.config.run
    placement = plan_placement(config.rollout, config.reward, config.learner, config.placement)
    check_room(placement, config.cluster)
    TRANSPORTS[config.weights.backend].check_reach(config.weights, num_nodes())
    if waiting := shortage(placement, free_resources()):
        display.line(f"cluster: {waiting}")
    open_run_folder = reopen_run_folder if request.resume else create_run_folder
    run_folder = open_run_folder(request.run_folder, config, request.command)
    with (
        locked_run(run_folder),
        events_kept(run_folder),
        RunProgress(display, run.num_steps, run.num_prompts_per_step) as progress,
    ):
        async with shown(progress.board, run_folder):
            return await _Run(request, inputs, progress).to_the_end()


class _Run:
    """One run on a cluster. A learner rank that dies, or an engine that cannot be replaced alone, costs an attempt."""

    def __init__(self, request: TrainRequest, inputs: RunInputs, progress: RunProgress) -> None:
        self._request, self._config, self._inputs, self._progress = request, request.config, inputs, progress
        self._folder = request.run_folder

    async def to_the_end(self) -> str:
        """Attempts until the last step is made, each from the last checkpoint."""
        for num_failures in range(self._config.learner.max_restarts + 1):
            try:
                return await self._attempt()
            except (LearnerDiedError, EngineLostError) as error:
                if num_failures == self._config.learner.max_restarts:
                    raise
                logger.warning("attempt %d ended: %s", num_failures + 1, error)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self) -> str:
        config = self._config
        store = CheckpointFolder(self._folder / "checkpoints", config.checkpoint.keep_last)
        await asyncio.to_thread(store.clean)
        checkpoint = await asyncio.to_thread(store.latest, self._request.allow_previous)  # verified before all else
        state = checkpoint.state if checkpoint else RunState(0, 0, {})
        step = state.step
        self._progress.go_on_from(step)
        async with started(config, self._inputs, self._folder, self._progress) as components:
            if checkpoint is not None:
                await components.learner.everywhere(
                    LearnerRank.restore, config.learner.start_timeout_s, checkpoint.folder
                )
            with self._progress.starting(f"weights of version {step}", "an engine's first answer takes longer"):
                await components.publish(step)
            before = await self._held_out("before", components)
            if step < config.run.num_steps:
                await asyncio.to_thread(self._forget_results)
                await self._train(components, Checkpoints(store, config, components.learner), state)
            export = self._folder / "export"
            if config.checkpoint.export and not export.exists():
                await components.learner.everywhere(LearnerRank.export, config.learner.update_timeout_s, export)
            after = await self._held_out("after", components)
            return await self._summarise(before, after, components, store.path(max(store.steps())))

    def _forget_results(self) -> None:
        """Remove what was made of weights that are trained further."""
        if (self._folder / "export").exists():
            shutil.rmtree(self._folder / "export")
        (self._folder / "evaluation" / "after.jsonl").unlink(missing_ok=True)

    async def _train(self, components: Components, checkpoints: Checkpoints, state: RunState) -> None:
        """The loop, from the step after that of `state` on."""
        config, run, board = self._config, self._config.run, self._progress.board
        accept = build_accept(config.algorithm, run.num_prompts_per_step)
        loop_config = LoopConfig(
            num_steps=run.num_steps,
            num_prompts_per_step=run.num_prompts_per_step,
            max_staleness=run.max_staleness,
            num_minibatches=config.learner.num_minibatches,
            keep_zero_advantages=config.algorithm.kl_coefficient > 0,
            advantages=build_advantages(config.algorithm, config.rollout.max_tokens),
            accept=lambda group: board.take(group, accept(group)),
            first_step=state.step + 1,
            cursor=state.cursor,
            state=state.advantages,
        )
        held_out = HeldOutSlice(self._folder, config, self._inputs.held_out, components, self._progress)
        held_out.go_back_to(state.step)
        watch = LessonWatch(self._progress.line)
        also = (self._progress, watch, UnscoredGuard(config.reward.max_unscored_share))
        recorder = open_recorder(self._folder, config.telemetry, config.model_dump(mode="json"), state.step + 1, also)
        system = System(
            prompts=self._inputs.train,
            rollouts=WatchedRollouts(components.rollouts, board),
            rewards=WatchedScorer(components.rewards, self._progress),
            learner=components.learner,
            weights=components.weights,
            checkpoints=checkpoints,
            metrics=recorder,
            held_out=held_out,
            devices=components.devices,
        )
        components.clock.lap()  # what came before is no part of the first step
        try:
            await train(system, loop_config, components.clock)
            board.forget_groups()
        except BaseExceptionGroup as group:
            raise first_cause(group) from group
        finally:
            recorder.close()

    async def _held_out(self, when: str, components: Components) -> list[HeldOutAnswer]:
        """Answers to the held-out items, from disk where a killed attempt had them already."""
        prompts, rollout = self._inputs.held_out[: self._config.evaluation.num_items], self._config.rollout
        path = self._folder / "evaluation" / f"{when}.jsonl"
        if path.is_file():
            return read_answers(path)
        if not prompts:
            return []
        sampling = Sampling(
            1, self._config.evaluation.temperature, rollout.top_p, rollout.max_tokens, self._config.run.seed
        )
        with self._progress.evaluating(f"held-out items {when} training", len(prompts)) as on_done:
            answers = await answer_items(prompts, components.engines, components.rewards, sampling, on_done)
        write_answers(path, answers)
        return answers

    async def _summarise(
        self, before: list[HeldOutAnswer], after: list[HeldOutAnswer], components: Components, checkpoint: Path
    ) -> str:
        """Write `summary.json` and return its text."""
        metrics = {"before": held_out_metrics(before), "after": held_out_metrics(after)}
        changes = held_out_changes(before, after)
        warnings = read_lacks(self._folder / METRICS_FILE)
        memory = {"driver": peak_memory_mib()} | await components.peak_memory_mib()
        paths = {
            "checkpoint": checkpoint,
            **({"specialist": self._folder / "export"} if self._config.checkpoint.export else {}),
            "run folder": self._folder,
        }
        row = {
            **{when: [asdict(metric) for metric in of_domains] for when, of_domains in metrics.items()},
            "changes": [asdict(change) for change in changes],
            "warnings": warnings,
            "peak_memory_mib": memory,
            "paths": {name: str(path) for name, path in paths.items()},
        }
        replace_file(self._folder / "summary.json", to_json(row, indent=2) + "\n")
        return format_summary(metrics["before"], metrics["after"], changes, _shown(paths), warnings)


def _shown(paths: dict[str, Path]) -> dict[str, Path]:
    """Paths relative to where the user stands, where they lie below it."""
    here = Path.cwd()
    return {name: path.relative_to(here) if path.is_relative_to(here) else path for name, path in paths.items()}
