"""Files and folders that survive a kill or a power cut: whole or not there, and on the disk when a call returns."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """The same for every file and folder below, contents before the folders that name them."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent) / name)
        sync(Path(parent))


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file so that at any moment either the old or the new content is there, whole; text in UTF-8."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def replace_folder(made: Path, folder: Path) -> None:
    """Put the folder `made`, which lies beside `folder`, durably in its place; what was there goes."""
    sync_tree(made)
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
