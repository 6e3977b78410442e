"""Where a merge writes: whether the output can be made and has room, and the folder that it works in meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyr1v_ray.config.folders import why_not_creatable
from tinyr1v_ray.errors import CheckpointError, RunFolderError
from tinyr1v_ray.files.lock import locked
from tinyr1v_ray.merging.journal import OUTPUT

_SPARE_DISK_BYTES = 64 << 20


def check_creatable(output: Path) -> None:
    """Raise RunFolderError when no folder can be made beside the output."""
    if reason := why_not_creatable(output.parent):
        raise _not_creatable(output, reason)


def check_room(output: Path, working_folder: Path, write_bytes: int) -> None:
    """Raise CheckpointError when the disk has less free than is still to be written."""
    parent = output.parent
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    have = 0
    if working_folder.is_dir():
        have = sum(f.stat().st_blocks * 512 for f in working_folder.rglob("*.safetensors"))
    needed = write_bytes + _SPARE_DISK_BYTES - have
    if free < needed:
        raise CheckpointError(
            f"{parent} has {free / 2**30:.2f} GiB free; the output needs {needed / 2**30:.2f} GiB; "
            "free some space or choose another output"
        )


@contextmanager
def locked_folder(folder: Path, output: Path, resume: bool) -> Iterator[Path]:
    """The working folder, created and locked; a second merge into the same output is refused while the first runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_creatable(output, error.strerror) from error
    with locked(folder / "lock", "one merge writes an output; wait for it or choose another output"):
        if not resume:
            _empty(folder)
        (folder / OUTPUT).mkdir(exist_ok=True)
        yield folder


def _empty(folder: Path) -> None:
    """Remove what an earlier attempt left, but for the lock that is held."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def _not_creatable(output: Path, reason: str | None) -> RunFolderError:
    return RunFolderError(f"output {output} cannot be made: {reason}; a merge makes a folder; choose another")
