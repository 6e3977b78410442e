"""JSON lines that survive a kill: a file that is only appended to, and cut back to a step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinyr1v_ray.errors import RunFolderError


class JsonLines:
    """A file of one JSON object a line, appended to and synced to the disk batch by batch."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows and return when the disk has them. NaN and infinities become null, as JSON lacks them."""
        for row in rows:
            self._file.write(to_json(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._file.close()


def to_json(value: object, indent: int | None = None) -> str:
    """Strict JSON text of plain Python values, with null for what is not finite."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def truncate_after(path: Path, last_step: int) -> int:
    """Cut a file of JSON lines back to the rows with `step` <= `last_step`; the number of rows that remain.

    Rows are in the order of their steps, so what goes is the end of the file, a last line that a kill tore included.
    A missing file has no rows. Raises RunFolderError when a line before the last is not a JSON object with a step.
    """
    if not path.exists():
        return 0
    num_kept, end = 0, 0
    with path.open("rb") as file:
        for line in file:
            step = _step_of(line)
            if step is None and file.read(1):
                raise RunFolderError(
                    f"line {num_kept + 1} of {path} is not a row with a step; only the last line of a killed run may "
                    "be torn; restore the file or start a run with another name"
                )
            if step is None or step > last_step:
                break
            num_kept, end = num_kept + 1, end + len(line)
    with path.open("rb+") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    return num_kept


def _step_of(line: bytes) -> int | None:
    """The step of a row; None when the line is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return step if isinstance(step, int) else None
