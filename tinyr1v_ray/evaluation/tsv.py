"""Reads benchmark tables in VLMEvalKit's TSV form: one item a line, quoted as pandas does, images in base64 in cells.

Rows come one at a time, since such files have gigabytes.
"""

from __future__ import annotations

import base64
import binascii
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tinyr1v_ray.errors import DataError

_MAX_CELL_CHARACTERS = 2**31 - 1
_MAX_REFERENCE_CHARACTERS = 64
"""An image cell of at most this length names another row's index instead of holding an image (VLMEvalKit's rule)."""
_OTHER_DELIMITERS = (",", ";", "|")


def read_tsv(path: Path, required: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows as column -> text; cells that a short line lacks are empty, a byte-order mark is dropped.

    Raises DataError, before the first row, when the file is missing, is not a UTF-8 table, is divided by something else
    than tabs, has a column twice, or lacks one of the `required`; and later for a line with more cells than columns and
    for a quote that is never closed. csv's limit on the length of cells, which is the whole process's and too low for
    images, is lifted for good.
    """
    if not path.is_file():
        raise DataError(f"benchmark file {path} does not exist; --data names its folder; download it there")
    try:
        yield from _rows(path, required)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"benchmark file {path} cannot be read: {reason}; it is a UTF-8 table divided by tabs; restore it"
        ) from error


def _rows(path: Path, required: Sequence[str]) -> Iterator[dict[str, str]]:
    csv.field_size_limit(_MAX_CELL_CHARACTERS)  # global, and left so: others may be reading in other threads
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _RowLines(file)
        reader = csv.reader(lines, delimiter="\t")
        header = next(reader, [])
        lines.end_row(path)
        _check_header(path, header, required)
        for cells in reader:
            lines.end_row(path)
            if not any(cells):
                continue
            if len(cells) > len(header):
                raise DataError(
                    f"line {reader.line_num} of {path} has {len(cells)} cells for {len(header)} columns; each cell has "
                    "a column; quote cells that hold tabs"
                )
            yield dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))


class _RowLines:
    """Lines of a file; keeps those of the row that is being read, which an open quote stretches to the file's end."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file = iter(file)
        self._next = next(self._file, None)
        self._num_ended = 0
        self._row: list[str] = []

    def __iter__(self) -> Iterator[str]:
        while self._next is not None:
            self._row.append(self._next)
            self._next = next(self._file, None)
            yield self._row[-1]

    def end_row(self, path: Path) -> None:
        """The row is read; raises DataError when it is the last because of a quote that is never closed."""
        if self._next is None and _leaves_quote_open(self._row):
            raise DataError(
                f"line {self._num_ended + 1} of {path} begins a row with a quote that is never closed; a quoted cell "
                "ends with a quote, and a quote inside it is written twice; close it"
            )
        self._num_ended += len(self._row)
        self._row = []


def _leaves_quote_open(lines: Sequence[str]) -> bool:
    """Whether a row runs to the end of the file because of a quote, which only a strict reader says.

    >>> _leaves_quote_open(['1\\t"a\\n', '2\\tb\\n']), _leaves_quote_open(['1\\t"a"\\n'])
    (True, False)
    """
    try:
        list(csv.reader(lines, delimiter="\t", strict=True))
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _check_header(path: Path, header: Sequence[str], required: Sequence[str]) -> None:
    if not header:
        raise DataError(f"benchmark file {path} is empty; it starts with a line of column names; restore it")
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"benchmark file {path} has the column {twice[:40]!r} twice; each has its own name; rename one")
    missing = [name for name in required if name not in header]
    if not missing:
        return
    if len(header) == 1:
        other = next((mark for mark in _OTHER_DELIMITERS if header[0].count(mark) >= len(required) - 1 > 0), None)
        if other is not None:
            raise DataError(f"benchmark file {path} is divided by {other!r}; cells are divided by tabs; convert it")
    shown = ", ".join(name[:40] for name in header[:20])
    raise DataError(
        f"benchmark file {path} has no column {', '.join(map(repr, missing))}; its columns are {shown}; "
        "take the file made for VLMEvalKit, or describe its columns under user benchmarks"
    )


def image_cells(cell: str) -> list[str]:
    """The entries of an image or image_path cell: one, or several written as a Python list.

    >>> image_cells("['a.png', 'b.png']"), image_cells("a.png"), image_cells("")
    (['a.png', 'b.png'], ['a.png'], [])
    """
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        parts = (part.strip().strip("'\"") for part in cell[1:-1].split(","))
        return [part for part in parts if part]
    return [cell] if cell else []


def is_reference(cell: str) -> bool:
    """Whether an image cell names another row's index."""
    return 0 < len(cell.strip()) <= _MAX_REFERENCE_CHARACTERS


def decode_image(cell: str) -> bytes:
    """Bytes of a base64 text, with or without a `data:` head; raises DataError when it is none."""
    text = cell.partition(",")[2] if cell.startswith("data:") else cell
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"image is broken base64 ({error}); it is an encoded image file; restore the cell") from error
