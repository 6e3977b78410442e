"""The learner's part of a checkpoint: DeepSpeed's own files, and beside them what they fit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tinyr1v_ray.errors import CheckpointError

_TAG = "deepspeed"
_FACTS = "learner.json"


@dataclass(frozen=True)
class StateFacts:
    """How the state is divided, which a restored learner must match, and how far the schedule is."""

    num_ranks: int
    zero_stage: int
    dtype: str
    num_optimizer_steps: int

    @property
    def layout(self) -> str:
        """In words, without the position."""
        return f"{self.num_ranks} rank(s), ZeRO stage {self.zero_stage}, {self.dtype}"


def save_state(engine: Any, folder: Path, facts: StateFacts) -> None:
    """Write weights, masters and moments of all ranks below `folder`; every rank calls it.

    Raises CheckpointError when the disk does not take it (torch reports that as a RuntimeError).
    """
    try:
        if dist.get_rank() == 0:  # first: DeepSpeed's own barriers come after it
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _FACTS).write_text(json.dumps(asdict(facts)) + "\n", encoding="utf-8")
        engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"learner state cannot be written to {folder}: {_one_line(error)}; the disk must take it; free space and "
            "resume"
        ) from error


def load_state(engine: Any, folder: Path, wanted: StateFacts) -> StateFacts:
    """Bring the engine to a saved state; every rank calls it. Returns what was saved.

    DeepSpeed's files are pickles: load only what this user wrote and whose hashes were verified. Raises
    CheckpointError when nothing is there, or it was divided otherwise than `wanted` says.
    """
    path = folder / _FACTS
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no learner state; a checkpoint has {_FACTS}; name another checkpoint")
    saved = StateFacts(**json.loads(path.read_text(encoding="utf-8")))
    if saved.layout != wanted.layout:
        raise CheckpointError(
            f"learner state in {folder} was written by {saved.layout}, and this learner is {wanted.layout}; a state is "
            "read as it was divided; resume with the settings that wrote it"
        )
    try:
        loaded, _ = engine.load_checkpoint(str(folder), tag=_TAG, load_lr_scheduler_states=False)
    except (OSError, RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise CheckpointError(
            f"learner state in {folder} cannot be read: {_one_line(error)}; it fits the model that wrote it; resume "
            "with that model, or from another checkpoint"
        ) from error
    if loaded is None:
        raise CheckpointError(f"{folder} lacks DeepSpeed's files; a learner state has them; name another checkpoint")
    return saved


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
