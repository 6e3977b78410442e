"""Checkpoints of a run: folders that are whole or not there at all.

A checkpoint is written into a hidden folder, every file is synced, the manifest is written last, and one rename makes
it appear; older ones are removed only after that. So a kill or a power cut at any moment leaves the last good one.
"""

from __future__ import annotations

import errno
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinyr1v_ray.checkpoint.manifest import RunState, verify, write_manifest
from tinyr1v_ray.errors import CheckpointError
from tinyr1v_ray.files.durable import sync, sync_tree

_NAME = re.compile(r"step-(\d{6,})")
_HIDDEN_NAME = re.compile(r"\.(step-\d{6,})\.(partial|replaced|removed)")

_FREE_SPACE_MARGIN = 1.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    folder: Path
    state: RunState


@dataclass
class PendingCheckpoint:
    """A checkpoint being written: put files into `folder`, then `commit`."""

    folder: Path
    final_folder: Path
    is_committed: bool = False

    def commit(self, state: RunState) -> None:
        """Make it durable and visible; raises OSError when the disk does not take it."""
        write_manifest(self.folder, state)
        sync_tree(self.folder)
        replaced = _hidden(self.final_folder, "replaced")
        if self.final_folder.exists():
            self.final_folder.rename(replaced)
        self.folder.rename(self.final_folder)
        sync(self.final_folder.parent)
        self.is_committed = True
        shutil.rmtree(replaced, ignore_errors=True)


class CheckpointFolder:
    """The checkpoints `step-000040`, `step-000060` ... of one run, the newest `keep_last` of them."""

    def __init__(self, folder: Path, keep_last: int) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}; at least one checkpoint is kept")
        self.folder = folder
        self._keep_last = keep_last

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending; their content is not looked at."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir() if path.is_dir())
        return sorted(int(match.group(1)) for match in matches if match)

    def path(self, step: int) -> Path:
        """Folder of a step's checkpoint."""
        return self.folder / f"step-{step:06d}"

    @contextmanager
    def writing(self, step: int, num_bytes: int = 0) -> Iterator[PendingCheckpoint]:
        """Write a checkpoint: fill `.folder` of what this yields, then call its `commit`.

        `num_bytes` estimates its size; too little free space is said before anything is written. Without `commit`,
        or on an error, everything is taken back. After `commit`, all but the newest `keep_last` checkpoints go, and so
        do those of later steps: the run that wrote them was given up for the one that goes on here.
        Raises CheckpointError, also for a full disk; the checkpoints before stay as they were.
        """
        pending = PendingCheckpoint(_hidden(self.path(step), "partial"), self.path(step))
        try:
            self.clean()
            self._check_space(step, num_bytes)
            pending.folder.mkdir(parents=True)
            yield pending
            if pending.is_committed:
                self._remove_old(step)
        except OSError as error:
            if isinstance(error, CheckpointError):
                raise
            reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise CheckpointError(
                f"checkpoint of step {step} cannot be written to {self.folder}: {reason}; it must be whole to count, "
                "and the ones before are untouched; free space and resume"
            ) from error
        finally:
            shutil.rmtree(pending.folder, ignore_errors=True)

    def latest(self, allow_previous: bool = False) -> Checkpoint | None:
        """The newest checkpoint, verified; None when there is none.

        Raises CheckpointError naming the first bad file of the newest one. With `allow_previous` the one before is
        tried instead, and so on; when none is good, the newest one's error is raised.
        """
        first_error: CheckpointError | None = None
        for step in reversed(self.steps()):
            try:
                return Checkpoint(self.path(step), verify(self.path(step)))
            except CheckpointError as error:
                first_error = first_error or error
                if not allow_previous:
                    break
                logger.warning("checkpoint of step %d is passed over: %s", step, error)
        if first_error is not None:
            raise first_error
        return None

    def clean(self) -> None:
        """Remove what interrupted saves left; call it when no save is under way.

        A checkpoint that was about to be replaced by another of the same step comes back.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.iterdir()):
            match = _HIDDEN_NAME.fullmatch(path.name)
            if match is None:
                continue
            final = self.folder / match.group(1)
            if match.group(2) == "replaced" and not final.exists():
                path.rename(final)
            else:
                shutil.rmtree(path)

    def _check_space(self, step: int, num_bytes: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if num_bytes * _FREE_SPACE_MARGIN > free:
            raise CheckpointError(
                f"checkpoint of step {step} takes about {num_bytes / 2**20:.0f} MiB and {self.folder} has "
                f"{free / 2**20:.0f} MiB free; it is written beside the ones before; free space and resume"
            )

    def _remove_old(self, step: int) -> None:
        older = [number for number in self.steps() if number < step]
        kept = set(older[len(older) - (self._keep_last - 1) :] if self._keep_last > 1 else [])
        for number in self.steps():
            if number != step and number not in kept:
                doomed = _hidden(self.path(number), "removed")
                self.path(number).rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)


def _hidden(folder: Path, mark: str) -> Path:
    return folder.with_name(f".{folder.name}.{mark}")
