"""Rows of a source as plain Python values that still say what was written.

The rule: a reader guesses nothing. JSON lines are kept as lines and parsed as JSON when read, so that a text which
looks like a date stays a text and an integer keeps its digits; a float of a table keeps its width, so that 0.1 stored
in 32 bits is 0.1 and not 0.10000000149; a class label is its name; what is no UTF-8 in a column of texts stays bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow
from datasets import ClassLabel, Dataset, Json

from tinyr1v_ray.errors import DataError

LINE_COLUMN = "text"
"""The one column of a data set of lines."""
_LINES_AT_ONCE = 1000


class Rows:
    """Some columns of a data set in Arrow format; of JSON lines where `is_json`. A cell that a row lacks is None."""

    def __init__(self, dataset: Dataset, columns: Sequence[str], is_json: bool) -> None:
        self._columns, self._is_json = tuple(columns), is_json
        self._dataset = dataset if is_json else dataset.select_columns(list(columns))

    def __getitem__(self, rows: slice) -> list[dict[str, Any]]:
        """Raises DataError for text inside of lists or structs that is not UTF-8."""
        table: pyarrow.Table = self._dataset[rows]
        if self._is_json:
            found = [json.loads(line) for line in table.column(LINE_COLUMN).to_pylist()]
            return [{name: row.get(name) for name in self._columns} for row in found]
        features = self._dataset.features
        columns = [_values(table.column(name), features[name]) for name in self._columns]
        return [dict(zip(self._columns, cells, strict=True)) for cells in zip(*columns, strict=True)]


def keep_json_lines(lines: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """The lines that are not blank, and the keys of all their objects in order of appearance.

    Raises DataError that names the first line which is no JSON object.
    """
    keys: dict[str, None] = {}
    kept: list[int] = []
    for start in range(0, len(lines), _LINES_AT_ONCE):
        batch = lines[start : start + _LINES_AT_ONCE].column(LINE_COLUMN).to_pylist()
        for index, line in enumerate(batch, start):
            if line.strip():
                keys.update(dict.fromkeys(_object(line, index + 1)))
                kept.append(index)
    return (lines if len(kept) == len(lines) else lines.select(kept)), tuple(keys)


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"line {number} is not JSON ({' '.join(str(error).split())[:100]}); each line is one JSON object; repair it"
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"line {number} holds a {type(row).__name__}; each line is one JSON object; repair it")
    return row


def _values(column: pyarrow.ChunkedArray, feature: Any) -> list[Any]:
    values = _plain(column)
    if isinstance(feature, Json):
        return [None if value is None else json.loads(value) for value in values]
    if isinstance(feature, ClassLabel):  # -1 is no label
        return [None if value is None or value < 0 else feature.int2str(value) for value in values]
    return [_widthed(value, column.type) for value in values]


def _plain(column: pyarrow.ChunkedArray) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError as error:
        if not (pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)):
            reason = f"{error.reason} at byte {error.start}"
            raise DataError(f"a column holds text that is not UTF-8 ({reason}); texts are UTF-8; convert it") from error
        return [_text_or_bytes(value) for value in column.cast(pyarrow.large_binary()).to_pylist()]


def _text_or_bytes(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _widthed(value: Any, kind: pyarrow.DataType) -> Any:
    """Floats below 64 bits as numpy's of that width, at any depth of lists and structs."""
    if isinstance(value, float) and not pyarrow.types.is_float64(kind):
        return np.float16(value) if pyarrow.types.is_float16(kind) else np.float32(value)
    if isinstance(value, list) and hasattr(kind, "value_type"):
        return [_widthed(part, kind.value_type) for part in value]
    if isinstance(value, dict) and pyarrow.types.is_struct(kind):
        return {field.name: _widthed(value[field.name], field.type) for field in kind}
    return value
