"""Folders that a setting names and that a command will make: whether it can, asked before anything is done."""

from __future__ import annotations

import os
from pathlib import Path


def why_not_creatable(folder: Path) -> str:
    """Why a folder can neither be made nor written into; empty when it can.

    >>> why_not_creatable(Path("/etc/hostname/runs"))
    '/etc/hostname is no folder'
    """
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir():
            return f"{existing} is no folder"
        return "" if os.access(existing, os.W_OK | os.X_OK) else f"{existing} may not be written into"
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        return error.strerror or str(error)
