"""The declared column mapping: what a row of a source says, in the package's terms."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Json

from tinyr1v_ray.config.train import DataSettings
from tinyr1v_ray.data.sources import Source
from tinyr1v_ray.errors import DataError

_OPTIONAL_COLUMNS = ("id_column", "domain_column", "difficulty_column")
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class ItemText:
    """The texts of an item; `item_id` is empty when the data has no ids."""

    item_id: str
    domain: str
    question: str
    answer: str
    difficulty: str


class ItemReader:
    """Reads items of one source by the columns that the settings name.

    Question, answer and (unless its setting is empty) image columns must exist. An id, domain or difficulty column must
    exist when its setting was changed from the default; where the default's column is absent, the setting counts as
    empty. Raises DataError that lists the columns there are.
    """

    def __init__(self, settings: DataSettings, source: Source) -> None:
        self.source = source
        self._default_domain = settings.domain
        self._columns = _resolve_columns(settings, source)
        features = source.dataset.features
        self._json_columns = {name for name in self._columns.values() if isinstance(features[name], Json)}
        text_columns = [name for role, name in self._columns.items() if role != "image_column"]
        self._texts = source.dataset.select_columns(list(dict.fromkeys(text_columns)))
        used_columns = list(dict.fromkeys(self._columns.values()))
        self._rows = source.dataset.select_columns(used_columns)

    def __len__(self) -> int:
        return len(self.source.dataset)

    def name(self, row_index: int) -> str:
        """How messages call an item."""
        return f"item {row_index} of {self.source.name}"

    def text(self, row_index: int) -> ItemText:
        """Texts of one item, without touching its images."""
        return self._to_text(row_index, self._decoded(self._texts[row_index])[0])

    def images(self, row_index: int) -> list[bytes]:
        """Contents of one item's images, in order; raises DataError when one cannot be read."""
        return self._to_images(self._decoded(self._rows[row_index])[0])

    def __iter__(self) -> Iterator[tuple[ItemText, list[bytes] | DataError]]:
        """All items in order; an image that cannot be read comes as the error that says why."""
        for start in range(0, len(self), _ROWS_AT_ONCE):
            rows = self._decoded(self._rows[start : start + _ROWS_AT_ONCE])
            for row_index, row in enumerate(rows, start):
                text = self._to_text(row_index, row)
                try:
                    yield text, self._to_images(row)
                except DataError as error:
                    yield text, error

    def _decoded(self, table: pyarrow.Table) -> list[dict[str, Any]]:
        """Rows as plain values; `datasets` keeps columns of mixed types as JSON texts."""
        rows = table.to_pylist()
        for row in rows:
            row.update(
                {name: json.loads(row[name]) for name in self._json_columns & row.keys() if row[name] is not None}
            )
        return rows

    def _to_text(self, row_index: int, row: Mapping[str, Any]) -> ItemText:
        texts = {role: _as_text(row[name]) for role, name in self._columns.items() if role != "image_column"}
        for role in ("question_column", "answer_column"):
            if not texts[role]:
                raise DataError(
                    f"{self.name(row_index)} has nothing in column {self._columns[role]!r}; every item has a question "
                    "and an answer; fill or remove it"
                )
        return ItemText(
            texts.get("id_column", ""),
            texts.get("domain_column", "") or self._default_domain,
            texts["question_column"],
            texts["answer_column"],
            texts.get("difficulty_column", ""),
        )

    def _to_images(self, row: Mapping[str, Any]) -> list[bytes]:
        column = self._columns.get("image_column")
        return [] if column is None else list(_image_contents(row[column], self.source.base_folder))


def _resolve_columns(settings: DataSettings, source: Source) -> dict[str, str]:
    """Role -> column name, for the roles that the source fills."""
    present = source.dataset.column_names
    columns = {}
    for role in ("question_column", "answer_column", "image_column", *_OPTIONAL_COLUMNS):
        name = getattr(settings, role)
        if not name and role in ("question_column", "answer_column"):
            raise DataError(f"data.{role} is empty; every item has a question and an answer; name the column")
        if not name or (role in _OPTIONAL_COLUMNS and name not in present and name == _default(role)):
            continue
        if name not in present:
            remedy = "" if role in ("question_column", "answer_column") else " (empty: the data has none)"
            raise DataError(
                f"data source {source.name} has no column {name!r}; its columns are {', '.join(present)}; "
                f"set data.{role}{remedy}"
            )
        columns[role] = name
    return columns


def _default(role: str) -> object:
    return DataSettings.model_fields[role].default


def _as_text(value: Any) -> str:
    """Text of a cell: nothing for null, several values joined by commas (an answer that is a list).

    Types that a reader guessed are undone as far as possible: whole floats lose their fraction (integers beside
    fractions become floats), midnights their time (dates in JSON become time stamps).
    """
    match value:
        case None:
            return ""
        case float() if value.is_integer():
            return str(int(value))
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case bytes():
            return value.decode("utf-8", "replace").strip()
        case list() | tuple():
            return ", ".join(_as_text(part) for part in value)
        case _:
            return str(value).strip()


def _image_contents(value: Any, base_folder: Path) -> Iterator[bytes]:
    """Bytes of the images in a cell: null, bytes, a path, `datasets`' mapping of both, or a list of these."""
    match value:
        case None | "" | {"bytes": None, "path": None}:
            return
        case bytes():
            yield value
        case {"bytes": bytes() as content}:
            yield content
        case str() | {"path": str()}:
            yield _read(value if isinstance(value, str) else value["path"], base_folder)
        case list() | tuple():
            for part in value:
                yield from _image_contents(part, base_folder)
        case _:
            raise DataError(
                f"image cell holds a {type(value).__name__}; it is bytes, a path or a list of these; convert it"
            )


def _read(path: str, base_folder: Path) -> bytes:
    if "://" in path:
        raise DataError(f"image {path} is an address; images are files or bytes in the data; download it")
    try:
        return (base_folder / path).read_bytes()
    except OSError as error:
        raise DataError(f"image file {path} cannot be read: {error.strerror}; it must exist; restore it") from error
