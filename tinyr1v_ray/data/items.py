"""The declared column mapping: what a row of a source says, in the package's terms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Image, LargeList, List

from tinyr1v_ray.config.base import shortened
from tinyr1v_ray.config.data import DataSettings
from tinyr1v_ray.data.cells import images_of, part_of, texts_of
from tinyr1v_ray.data.chat import Chat, Turn, read_chat
from tinyr1v_ray.data.sources import Source
from tinyr1v_ray.errors import DataError

_OPTIONAL_COLUMNS = ("id_column", "domain_column", "difficulty_column")
_FILE_NAMES = {"image": "file_name", "images": "file_names"}
"""Columns of images, and those that name their files in a folder's metadata."""
_IMAGE_LIKE = re.compile(r"(image|img|picture|photo|figure)s?(_?(path|file|url|byte|base64|name)s?)?", re.IGNORECASE)
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class ItemText:
    """The texts of an item; `item_id` is empty when the data has no ids.

    `other_answers` count as much as `answer`; `history` is the conversation before the question.
    """

    item_id: str
    domain: str
    question: str
    answer: str
    difficulty: str
    other_answers: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class _Column:
    """A column, or with `keys` a part of it."""

    name: str
    keys: tuple[str, ...]

    @property
    def full_name(self) -> str:
        return ".".join((self.name, *self.keys))

    def cell(self, row: Mapping[str, Any]) -> Any:
        return part_of(row[self.name], self.keys)


class ItemReader:
    """Reads items of one source by the columns that the settings name; a dot leads into a column's parts.

    Question, answer and (unless its setting is empty) image columns must exist. An id, domain or difficulty column must
    exist when its setting was changed from the default; where the default's column is absent, the setting counts as
    empty. Raises DataError that lists the columns there are.
    """

    def __init__(self, settings: DataSettings, source: Source) -> None:
        self.source = source
        self._default_domain = settings.domain
        self._columns = _resolve_columns(settings, source)
        used = [column.name for column in self._columns.values()]
        texts = [column.name for role, column in self._columns.items() if role != "image_column"]
        self._texts, self._rows = (source.rows(list(dict.fromkeys(names))) for names in (texts, used))

    def __len__(self) -> int:
        return len(self.source.dataset)

    def name(self, row_index: int) -> str:
        """How messages call an item."""
        return f"item {row_index} of {self.source.name}"

    def text(self, row_index: int) -> ItemText:
        """Texts of one item, without touching its images; raises DataError when they make no item."""
        (row,) = self._texts[row_index : row_index + 1]
        return self._to_text(row, self._chat(row))

    def images(self, row_index: int) -> list[bytes]:
        """Contents of one item's images, in order; raises DataError when one cannot be read."""
        (row,) = self._rows[row_index : row_index + 1]
        return self._to_images(row, self._chat(row))

    def __iter__(self) -> Iterator[tuple[ItemText, list[bytes] | DataError]]:
        """All items in order; one that cannot be read comes with the error that says why, in place of its images."""
        for start in range(0, len(self), _ROWS_AT_ONCE):
            for row in self._rows[start : start + _ROWS_AT_ONCE]:
                text = ItemText("", self._default_domain, "", "", "")
                try:
                    chat = self._chat(row)
                    text = self._to_text(row, chat)
                    yield text, self._to_images(row, chat)
                except DataError as error:
                    yield text, error

    def _chat(self, row: Mapping[str, Any]) -> Chat | None:
        return read_chat(self._columns["question_column"].cell(row))

    def _to_text(self, row: Mapping[str, Any], chat: Chat | None) -> ItemText:
        answers = self._texts_in("answer_column", row)
        question = chat.turns[-1].content if chat else self._text_in("question_column", row)
        for role, found in (("question_column", question), ("answer_column", answers)):
            if not found:
                raise DataError(
                    f"nothing in column {self._columns[role].full_name!r}; every item has a question and an answer; "
                    "fill or remove it"
                )
        return ItemText(
            self._text_in("id_column", row),
            self._text_in("domain_column", row) or self._default_domain,
            question,
            answers[0],
            self._text_in("difficulty_column", row),
            answers[1:],
            chat.turns[:-1] if chat else (),
        )

    def _text_in(self, role: str, row: Mapping[str, Any]) -> str:
        """The one value of a cell; only an answer may have several."""
        texts = self._texts_in(role, row)
        if len(texts) > 1:
            raise DataError(
                f"column {self._columns[role].full_name!r} holds {len(texts)} values; only an answer is a list; name a "
                "column with one"
            )
        return texts[0] if texts else ""

    def _texts_in(self, role: str, row: Mapping[str, Any]) -> tuple[str, ...]:
        if (column := self._columns.get(role)) is None:
            return ()
        try:
            return texts_of(column.cell(row))
        except DataError as error:
            raise DataError(f"column {column.full_name!r} holds {error}") from error

    def _to_images(self, row: Mapping[str, Any], chat: Chat | None) -> list[bytes]:
        """Of the conversation's parts where these hold images, else of the image column."""
        column = self._columns.get("image_column")
        cell = list(chat.images) if chat and chat.images else column and column.cell(row)
        return list(images_of(cell, self.source.base_folder))


def has_column(source: Source, name: str) -> bool:
    """Whether a source has a column of that name, or a dotted part of one."""
    return _find(source, name) is not None


def image_like_columns(source: Source) -> list[str]:
    """Columns that hold images by their declared type, or by what they are called."""
    features = {} if source.json_keys else source.dataset.features
    return [name for name in source.columns if _IMAGE_LIKE.fullmatch(name) or _is_image(features.get(name))]


def _is_image(feature: Any) -> bool:
    while isinstance(feature, List | LargeList):
        feature = feature.feature
    return isinstance(feature, Image)


def _resolve_columns(settings: DataSettings, source: Source) -> dict[str, _Column]:
    """Role -> column, for the roles that the source fills."""
    columns = {}
    for role in ("question_column", "answer_column", "image_column", *_OPTIONAL_COLUMNS):
        name = getattr(settings, role)
        if not name and role in ("question_column", "answer_column"):
            raise DataError(f"data.{role} is empty; every item has a question and an answer; name the column")
        if not name:
            continue
        if (column := _find(source, name)) is not None:
            columns[role] = column
        elif role not in _OPTIONAL_COLUMNS or name != _default(role):
            remedy = "" if role in ("question_column", "answer_column") else " (empty: none is read)"
            raise DataError(
                f"data source {source.name} has no column {name!r}; its columns are {_known(source)}; "
                f"set data.{role}{remedy}"
            )
    return columns


def _find(source: Source, name: str) -> _Column | None:
    """The column of that name, else the longest one that the name begins with, up to a dot; None for neither."""
    name = name if name in source.columns else _FILE_NAMES.get(name, name)
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (column := ".".join(parts[:length])) in source.columns:
            keys = tuple(parts[length:])
            known = source.json_keys or _has_part(source.dataset.features[column], keys)
            return _Column(column, keys) if known else None
    return None


def _has_part(feature: Any, keys: tuple[str, ...]) -> bool:
    """Whether a feature may have the part: what it holds as text is not looked into."""
    while isinstance(feature, List | LargeList):
        feature = feature.feature
    if not keys or not isinstance(feature, dict):
        return True
    return keys[0] in feature and _has_part(feature[keys[0]], keys[1:])


def _known(source: Source) -> str:
    """Columns, and the parts of those that declare them."""
    features = {} if source.json_keys else source.dataset.features
    named = source.json_keys or [
        f"{name} ({', '.join(f'{name}.{part}' for part in features[name])})"
        if isinstance(features[name], dict)
        else name
        for name in features
    ]
    return shortened(", ".join(named), 1000)


def _default(role: str) -> object:
    return DataSettings.model_fields[role].default
