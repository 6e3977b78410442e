"""Throughput of an earlier run, from its metrics.jsonl and config.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyr1v_ray.config.base import parse_settings, read_yaml
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.planning.timing import Throughput

_WARM_UP_STEPS = 1
"""An engine's first answers and a learner's first step are slower; they are left out where more were made."""


def read_recorded(folder: Path, config: TrainConfig) -> tuple[Throughput, dict[str, float]]:
    """Throughput for `config`, scaled by engines and ranks, and the mean completion as an expectation.

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
    """What makes a recorded figure doubtful."""
    different = [
        name
        for name, pair in {
            "model": (then.model.path, now.model.path),
            "dtype": (then.model.dtype, now.model.dtype),
            "GPUs": (then.rollout.num_gpus_per_engine > 0, now.rollout.num_gpus_per_engine > 0),
        }.items()
        if pair[0] != pair[1]
    ]
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
