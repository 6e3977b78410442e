"""The manifest of a checkpoint: what the run's state was, and every file with its size and hash.

It is written last. A folder without a manifest is no checkpoint, and a file that differs from it is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinyr1v_ray.errors import CheckpointError
from tinyr1v_ray.files.hashing import file_sha256

MANIFEST = "manifest.json"

_NUM_HASH_THREADS = 4


@dataclass(frozen=True)
class RunState:
    """What a run needs to go on, besides the learner's own files.

    `cursor` counts the groups consumed so far, `versions` tells which packages wrote it (name to version),
    `advantages` is the state of an algorithm that keeps some from step to step.

    >>> RunState(40, 640, {"torch": "2.13.0"}).cursor
    640
    """

    step: int
    cursor: int
    versions: Mapping[str, str]
    advantages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 (hex) of a file."""

    num_bytes: int
    sha256: str


def write_manifest(folder: Path, state: RunState) -> None:
    """Hash every file below `folder` and write the manifest; raises OSError when the disk does not take it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    content = {
        "state": {**vars(state), "versions": dict(state.versions), "advantages": dict(state.advantages)},
        "files": {
            path.relative_to(folder).as_posix(): asdict(entry)
            for path, entry in zip(paths, _hash_files(paths), strict=True)
        },
    }
    text = json.dumps({"sha256": _digest(content), **content}, indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def verify(folder: Path) -> RunState:
    """State of a checkpoint whose files all are as they were written; raises CheckpointError naming the file if not.

    Besides sizes and hashes, every file must be a plain one that belongs to this user and is in the manifest, since
    DeepSpeed's state is a pickle and reading a pickle runs what is in it.
    """
    content = _read_manifest(folder)
    entries = {name: FileEntry(**entry) for name, entry in content["files"].items()}
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not _is_folder(path)}
    del found[MANIFEST]
    for name in sorted(entries.keys() | found.keys()):
        if name not in found:
            raise CheckpointError(_complaint(folder / name, "is missing"))
        if name not in entries:
            raise CheckpointError(_complaint(folder / name, "is not in the manifest"))
        _check_plain(found[name])
        if (size := found[name].stat().st_size) != entries[name].num_bytes:
            raise CheckpointError(_complaint(found[name], f"has {size} bytes instead of {entries[name].num_bytes}"))
    names = sorted(entries)
    for name, entry in zip(names, _hash_files([found[name] for name in names]), strict=True):
        if entry.sha256 != entries[name].sha256:
            raise CheckpointError(_complaint(found[name], "has another hash than the manifest says"))
    return RunState(**content["state"])


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(_complaint(path, "is missing"))
    _check_plain(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        expected = content.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(_complaint(path, "cannot be read")) from error
    if _digest(content) != expected:
        raise CheckpointError(_complaint(path, "has another hash than it says"))
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _hash_files(paths: list[Path]) -> list[FileEntry]:
    """Sizes and hashes, several files at a time (hashing releases the interpreter)."""
    with ThreadPoolExecutor(_NUM_HASH_THREADS) as threads:
        return list(threads.map(_hash_file, paths))


def _hash_file(path: Path) -> FileEntry:
    return FileEntry(path.stat().st_size, file_sha256(path))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _check_plain(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(_complaint(path, "is not a plain file"))
    if path.stat().st_uid != os.getuid():
        raise CheckpointError(_complaint(path, f"belongs to user {path.stat().st_uid}, not {os.getuid()}"))


def _complaint(path: Path, what: str) -> str:
    return (
        f"checkpoint file {path} {what}; a run goes on only from files exactly as it wrote them; restore the "
        "file, pass over the checkpoint (train --allow-previous-checkpoint), or start again in another folder"
    )
