"""Where a step's metrics go: the run folder's own files always, TensorBoard by default, Weights & Biases on request."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tinyr1v_ray.config.telemetry import TelemetrySettings
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.files.json_lines import JsonLines, truncate_after
from tinyr1v_ray.telemetry.metrics import step_metrics
from tinyr1v_ray.telemetry.samples import SampleSink, drop_samples_after
from tinyr1v_ray.types import LearnerUpdate, ScoredGroup, StepAdvantages, StepMetrics

METRICS_FILE = "metrics.jsonl"
GROUPS_FILE = "groups.jsonl"


class Sink(Protocol):
    """A metric sink with an end."""

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """Record a finished step."""

    def close(self) -> None:
        """Flush and let go of files."""


class StepRecorder:
    """The loop's `MetricSink`: works out a step's metrics and hands them to several sinks, in order."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def log(
        self,
        step: int,
        update: LearnerUpdate,
        groups: Sequence[ScoredGroup],
        advantages: StepAdvantages,
        num_rejected: int,
        seconds: Mapping[str, float],
    ) -> None:
        """Record a finished step everywhere."""
        metrics = step_metrics(step, update, groups, advantages, num_rejected, seconds)
        for sink in self._sinks:
            sink.log(metrics, groups, advantages.by_group_PG)

    def close(self) -> None:
        """Close every sink in order, the others too when one fails."""
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)


class JsonlSink:
    """`metrics.jsonl`, a row a step, and `groups.jsonl`, a row a trained group, in the order of training.

    The groups of a step are on the disk before its metrics are, and both are when `log` returns.
    """

    def __init__(self, run_folder: Path) -> None:
        self._metrics = JsonLines(run_folder / METRICS_FILE)
        self._groups = JsonLines(run_folder / GROUPS_FILE)

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """Append the step's rows and wait for the disk."""
        pairs = zip(groups, advantages_PG, strict=True)
        self._groups.append([group_row(metrics, group, advantages_G) for group, advantages_G in pairs])
        self._metrics.append([metrics.as_row()])

    def close(self) -> None:
        """Close both files."""
        self._metrics.close()
        self._groups.close()


def group_row(metrics: StepMetrics, group: ScoredGroup, advantages_G: np.ndarray) -> dict[str, Any]:
    """What `groups.jsonl` holds of a group: one entry per completion in each list, in the order of their seeds."""
    prompt, completions, scores = group.group.prompt, group.group.completions, group.scores
    return {
        "step": metrics.step,
        "version": metrics.version,
        "position": prompt.position,
        "prompt_id": prompt.prompt_id,
        "epoch": prompt.epoch,
        "domain": prompt.domain,
        "first_versions": [completion.first_version for completion in completions],
        "last_versions": [completion.last_version for completion in completions],
        "rewards": [float(score.total) for score in scores],
        "lengths": [completion.num_tokens for completion in completions],
        "advantages": [float(advantage) for advantage in advantages_G],
        "finish": [str(completion.finish) for completion in completions],
        "correct": [bool(score.correct) for score in scores],
        "failures": [score.failure for score in scores],
    }


class TensorBoardSink:
    """TensorBoard events through TensorBoard's own writer, which needs neither torch nor tensorflow.

    A resumed run says at which step it starts, so that TensorBoard drops what a killed run wrote from there on.
    """

    def __init__(self, folder: Path, first_step: int = 1) -> None:
        goes_on = any(folder.glob("events.out.tfevents.*"))
        self._writer = EventFileWriter(str(folder))
        if goes_on:
            start = SessionLog(status=SessionLog.SessionStatus.START)
            self._writer.add_event(Event(wall_time=time.time(), step=first_step, session_log=start))

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """Write the step's metrics as scalars `train/...` and its seconds as `seconds/...`."""
        named = {f"train/{name}": value for name, value in metrics.values.items()}
        named |= {f"seconds/{name}": value for name, value in metrics.seconds.items()}
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in named.items()])
        self._writer.add_event(Event(wall_time=time.time(), step=metrics.step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbSink:
    """A Weights & Biases run; a resumed run goes on under the same id (steps it already knows are not sent twice).

    Raises ConfigError when it is not installed or will not start.
    """

    def __init__(self, run_folder: Path, project: str, config: Mapping[str, Any]) -> None:
        wandb = import_wandb(project)
        name = run_folder.name
        try:
            self._run = wandb.init(
                project=project, name=name, id=name, resume="allow", dir=str(run_folder), config=dict(config)
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(
                f"telemetry.wandb_project is {project!r}, and wandb does not start: {reason}; it needs an "
                "account or WANDB_MODE=offline; set one up or leave the setting empty"
            ) from error

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """Send the step's row."""
        self._run.log(metrics.as_row(), step=metrics.step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def import_wandb(project: str) -> ModuleType:
    """The package, which is imported only here; raises ConfigError when it is not installed."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            f"telemetry.wandb_project is {project!r}, and wandb is not installed; it is an extra of this package; "
            "pip install 'tinyr1v-ray[wandb]' or leave the setting empty"
        ) from error


def open_recorder(
    run_folder: Path,
    settings: TelemetrySettings,
    config: Mapping[str, Any],
    first_step: int = 1,
    also: Sequence[Sink] = (),
) -> StepRecorder:
    """The sinks that the settings ask for, then those in `also`; `config` is the resolved configuration, plain values.

    A run that goes on at `first_step` first drops what was recorded from there on, so that each trained group is
    recorded once. Raises ConfigError when wandb is asked for and missing, RunFolderError when a file is damaged.
    """
    wandb = [WandbSink(run_folder, settings.wandb_project, config)] if settings.wandb_project else []
    rewind(run_folder, first_step - 1)
    sinks: list[Sink] = [JsonlSink(run_folder)]
    if settings.num_samples_per_step:
        sinks.append(SampleSink(run_folder / "samples", settings.num_samples_per_step))
    if settings.tensorboard:
        sinks.append(TensorBoardSink(run_folder / "tensorboard", first_step))
    return StepRecorder([*sinks, *wandb, *also])


def rewind(run_folder: Path, last_step: int) -> None:
    """Drop the rows and samples of steps after `last_step`, the step of the checkpoint that a run goes on from."""
    truncate_after(run_folder / GROUPS_FILE, last_step)
    truncate_after(run_folder / METRICS_FILE, last_step)
    drop_samples_after(run_folder / "samples", last_step)
