"""How long a training takes, from throughput that was stated or recorded; nothing is guessed from data sheets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1v_ray.config.base import parse_settings, read_yaml
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.planning.plan import PlanRequest
from tinyr1v_ray.planning.workload import StepLoad

UNKNOWN = "not known: --throughput generate=N,learn=N (tokens a second) or --recorded RUN says it"
_WARM_UP_STEPS = 1
"""An engine's first answers and a learner's first step are slower; they are left out where more were made."""


@dataclass(frozen=True)
class Throughput:
    """Completion tokens a second of all engines and of the whole learner (None: not known), seconds of a publication;
    `source` is printed."""

    generate: float | None = None
    learn: float | None = None
    publish_s: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a mean step by phase, and of the whole run without its start."""

    generate_s: float
    learn_s: float
    publish_s: float
    overlapped: bool
    num_steps: int
    held_out_s: float
    source: str

    @property
    def step_s(self) -> float:
        """One step; an asynchronous run generates while it learns."""
        serial = self.learn_s + self.publish_s
        return max(self.generate_s, serial) if self.overlapped else self.generate_s + serial

    @property
    def run_s(self) -> float:
        """All steps, and the held-out answers before, after and on the way."""
        return self.num_steps * self.step_s + self.held_out_s


def train_time(config: TrainConfig, load: StepLoad, known: Throughput) -> StepTime | None:
    """A mean step and the run; None when generating or learning is not known."""
    if known.generate is None or known.learn is None:
        return None
    return StepTime(
        generate_s=load.completion_tokens / known.generate,
        learn_s=load.completion_tokens / known.learn,
        publish_s=known.publish_s,
        overlapped=config.run.max_staleness > 0,
        num_steps=config.run.num_steps,
        held_out_s=_num_held_out(config) * load.lengths.completion / known.generate,
        source=known.source,
    )


def _num_held_out(config: TrainConfig) -> int:
    """Answers to held-out items over the whole run."""
    evaluation = config.evaluation
    if not config.data.evaluation:
        return 0
    times = config.run.num_steps // evaluation.every_n_steps if evaluation.every_n_steps else 0
    return 2 * evaluation.num_items + times * evaluation.num_slice_items


def stated_throughput(request: PlanRequest) -> Throughput:
    """`--throughput generate=N,learn=N`."""
    values = request.throughput
    words = ", ".join(f"{name} {value:,.0f} tokens/s" for name, value in values.items())
    return Throughput(values.get("generate"), values.get("learn"), 0.0, f"stated: {words}" if words else "")


def read_recorded(folder: Path, config: TrainConfig) -> tuple[Throughput, dict[str, float]]:
    """Throughput for `config` from a run's metrics.jsonl and config.yaml, scaled by engines and ranks, and the mean
    completion as an expectation.

    Raises RunFolderError when the folder holds no step of a run.
    """
    rows = _rows(folder / "metrics.jsonl")
    then = parse_settings(TrainConfig, read_yaml(folder / "config.yaml"))
    rows = rows[_WARM_UP_STEPS:] or rows
    tokens = sum(row["tokens_per_second"] * row["seconds_step"] for row in rows)
    overlapped = then.run.max_staleness > 0
    generate_s = sum(row["seconds_step" if overlapped else "seconds_generate"] for row in rows)
    learn_s = sum(row["seconds_learn"] for row in rows)
    lengths = [row["length_mean"] for row in rows if row["length_mean"] is not None]
    engines = config.rollout.num_engines / then.rollout.num_engines
    ranks = config.learner.num_ranks / then.learner.num_ranks
    scaled = "" if engines == ranks == 1 else f", scaled to {engines:g} x its engines and {ranks:g} x its ranks"
    throughput = Throughput(
        generate=engines * tokens / max(generate_s, 1e-9),
        learn=ranks * tokens / max(learn_s, 1e-9),
        publish_s=sum(row.get("seconds_publish", 0.0) for row in rows) / len(rows),
        source=f"recorded: {len(rows)} steps of {folder}{scaled}{_difference(then, config)}",
    )
    return throughput, {"completion": sum(lengths) / len(lengths)} if lengths else {}


def _difference(then: TrainConfig, now: TrainConfig) -> str:
    """What makes a recorded number doubtful."""
    pairs = {
        "model": (then.model.path, now.model.path),
        "dtype": (then.model.dtype, now.model.dtype),
        "GPUs": (then.rollout.num_gpus_per_engine > 0, now.rollout.num_gpus_per_engine > 0),
    }
    different = [name for name, (before, after) in pairs.items() if before != after]
    return f" (of another {' and '.join(different)}: doubtful)" if different else ""


def _rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, filter(None, lines)) if row.get("seconds_step")]
    except (OSError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(
            f"recorded run {path.parent} cannot be read: {reason}; it is a run's folder with metrics.jsonl; name one"
        ) from error
    if not rows:
        raise RunFolderError(f"recorded run {path.parent} has made no step; a recorded run has some; name another")
    return rows
