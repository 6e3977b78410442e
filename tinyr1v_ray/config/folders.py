"""Folders that a setting names, whether one that is to be made can be, and the one of what is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

Folder = Annotated[str, AfterValidator(os.path.expanduser)]
"""A folder, or the name of a model, which may be one; a leading `~` is the home of whoever reads the settings."""


def default_cache_folder() -> Path:
    """Where what was drawn, converted or counted is kept between runs:
    `$XDG_CACHE_HOME/tinyr1v_ray`, else under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyr1v_ray"


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
