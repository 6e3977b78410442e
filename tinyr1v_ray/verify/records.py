"""Records as strict rows, and how they are held against what follows from others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1v_ray.errors import RecordError
from tinyr1v_ray.evaluation.reading import UNREADABLE, as_object, parse, reason

_TOLERANCE = 1e-9
"""Relative: another machine's arithmetic may differ in the last bits, an edit or a damaged byte does so by more."""


@dataclass(frozen=True)
class Row:
    """A line of a file of JSON lines."""

    file: str
    number: int
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return f"line {self.number} of {self.file}"

    def __getitem__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError as error:
            raise broken(f"{self} has no {name}", "every row has all columns") from error


def read_rows(path: Path) -> Iterator[Row]:
    """Every whole line; what a kill left of a last one is no row. A missing file has none.

    Raises RecordError at a line that is no JSON object.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield Row(path.name, number, as_object(parse(line), "it"))
            except UNREADABLE as error:
                raise broken(
                    f"line {number} of {path.name} is damaged ({reason(error)})", "every line is a JSON object"
                ) from error


def broken(seen: str, rule: str) -> RecordError:
    """The error of records that are incomplete or contradict each other."""
    return RecordError(f"{seen}; {rule}; restore the folder, or start the run again in another one")


def agree(recorded: object, expected: object) -> bool:
    """Whether a recorded value is the expected one; null stands for what is not finite.

    >>> agree([1, None], [1.0, math.nan]), agree({"a": 0.3}, {"a": 0.1 + 0.2}), agree(0.5, 0.51), agree(True, 1.5)
    (True, True, False, False)
    """
    if isinstance(expected, Mapping) and isinstance(recorded, Mapping):
        return recorded.keys() == expected.keys() and all(agree(recorded[name], expected[name]) for name in expected)
    if isinstance(expected, list | tuple) and isinstance(recorded, list):
        return len(recorded) == len(expected) and all(map(agree, recorded, expected))
    if isinstance(expected, int | float) and isinstance(recorded, int | float):
        return math.isclose(recorded, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return recorded == expected or (recorded is None and isinstance(expected, float) and not math.isfinite(expected))
