"""Hashes of files and of plain values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def file_sha256(path: Path) -> str:
    """SHA-256 of a whole file, as `sha256sum` and model hubs show it; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_sha256(value: object) -> str:
    """SHA-256 of plain values as JSON, whatever the order of their keys.

    >>> value_sha256({"a": 1, "b": 2}) == value_sha256({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
