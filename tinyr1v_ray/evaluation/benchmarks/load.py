"""From a benchmark's TSV to items, with images put into the store. Bad cells cost an item, a bad file is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

from tinyr1v_ray.data.images import ImageFacts, inspect_image, store_image
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem
from tinyr1v_ray.evaluation.tsv import decode_image, image_cells, is_reference, read_tsv

EMPTY_KEY = "answer key is empty"
_MEMORY_ADDRESS = re.compile(r" <[^<>]* at 0x[0-9a-f]+>")  # Pillow's way of naming bytes; reasons are counted by text
_WHOLE_FLOAT = re.compile(r"^(\d+)\.0$")  # as pandas writes whole numbers where a cell of the column is empty
_IMAGE_COLUMNS = ("image", "image_path")
_MAX_COLUMN_CHARACTERS = 1_000_000
"""Cells of further columns that are longer are left out: pictures under other names."""


def find_file(benchmark: Benchmark, folder: Path) -> Path:
    """The benchmark's TSV; raises DataError that says which names it may have."""
    for name in benchmark.files:
        path = folder / name
        if path.is_file():
            return path
    names = " or ".join(benchmark.files)
    raise DataError(
        f"benchmark {benchmark.name} has no file in {folder}; it is {names}, as published for VLMEvalKit; download it "
        "there, or correct --data"
    )


def load_items(benchmark: Benchmark, path: Path, image_folder: Path, max_megapixels: float) -> list[BenchmarkItem]:
    """Every row as an item. One row's pictures are in memory at a time.

    An item with an unreadable image or an empty key keeps its place and has `failure` set. Raises DataError for a bad
    table (see `read_tsv`), a table without rows, keys or the images that it should have, and for two rows with the same
    index.
    """
    keys = () if benchmark.hidden_key else (benchmark.answer_column,)
    required = ("index", benchmark.question_column, *keys, *benchmark.columns)
    images = _RowImages(path, image_folder, max_megapixels)
    items: dict[str, BenchmarkItem] = {}
    for row in read_tsv(path, required):
        if benchmark.images and not set(_IMAGE_COLUMNS) & row.keys():
            raise DataError(f"benchmark file {path} has no column image or image_path; items have images; restore it")
        if benchmark.metric == "choice" and not set(ascii_uppercase) & row.keys():
            raise DataError(
                f"benchmark file {path} has no column A, B, ...; metric choice compares the letters of options; add "
                f"them, or set another user.{benchmark.name}.metric"
            )
        item = _item(benchmark, row)
        if not item.index or item.index in items:
            what = f"twice the index {item.index!r}" if item.index else "a row without an index"
            raise DataError(f"benchmark file {path} has {what}; each row has its own; correct the file")
        items[item.index] = images.attach(item, row) if benchmark.images else item
    found = [images.resolve(item) for item in items.values()]
    _check_keys(path, found)
    return found


class _RowImages:
    """Stores the images of rows; rows may name another row's index instead of having their own."""

    def __init__(self, path: Path, image_folder: Path, max_megapixels: float) -> None:
        self._base, self._folder, self._max_megapixels = path.parent, image_folder, max_megapixels
        self._own: dict[str, tuple[ImageFacts, ...]] = {}
        self._named: dict[str, str] = {}

    def attach(self, item: BenchmarkItem, row: Mapping[str, str]) -> BenchmarkItem:
        """The item with its images, or with the reason why it has none; a reference is resolved later."""
        cell = row.get("image", "")
        if is_reference(cell):
            self._named[item.index] = cell.strip()
            return item
        try:
            if cell.strip():
                contents = [decode_image(part) for part in image_cells(cell)]
            else:
                contents = [self._read(part) for part in image_cells(row.get("image_path", ""))]
            facts = self._store(contents)
        except DataError as error:
            return _failed(item, _MEMORY_ADDRESS.sub("", str(error).partition(";")[0]))
        self._own[item.index] = facts
        return replace(item, images=facts)

    def resolve(self, item: BenchmarkItem) -> BenchmarkItem:
        """The item with the images of the row that it names, directly or through others."""
        if item.index not in self._named:
            return item
        seen, index = {item.index}, self._named[item.index]
        while index in self._named and index not in seen:
            seen.add(index)
            index = self._named[index]
        if index not in self._own:
            return _failed(item, f"image cell names row {self._named[item.index]!r}, which has no readable image")
        return replace(item, images=self._own[index])

    def _read(self, name: str) -> bytes:
        try:
            return (self._base / name).read_bytes()
        except (OSError, ValueError) as error:
            raise DataError(f"image file {name[:200]} cannot be read ({error}); it exists; restore it") from error

    def _store(self, contents: Iterable[bytes]) -> tuple[ImageFacts, ...]:
        stored = []
        for content in contents:
            facts = inspect_image(content, self._max_megapixels)
            store_image(self._folder, content, facts)
            stored.append(facts)
        if not stored:
            raise DataError("row has no image; each item has one; restore it")
        return tuple(stored)


def _item(benchmark: Benchmark, row: Mapping[str, str]) -> BenchmarkItem:
    options = {letter: row[letter] for letter in ascii_uppercase if row.get(letter, "").strip()}
    answer = row.get(benchmark.answer_column, "").strip()
    if not answer and benchmark.hidden_key is not None:
        answer = benchmark.hidden_key(row)
    used = {*_IMAGE_COLUMNS, *options, "index", benchmark.question_column, benchmark.answer_column}
    columns = {name: text for name, text in row.items() if name not in used and len(text) <= _MAX_COLUMN_CHARACTERS}
    if "image_path" in benchmark.columns:
        columns["image_path"] = row["image_path"]
    return BenchmarkItem(
        row["index"].strip(),
        row[benchmark.question_column],
        answer,
        options,
        _WHOLE_FLOAT.sub(r"\1", row.get(benchmark.category_column, "")),
        columns,
        failure="" if answer.strip("[]'\" ,") else EMPTY_KEY,
    )


def _failed(item: BenchmarkItem, reason: str) -> BenchmarkItem:
    return replace(item, failure=item.failure or reason)


def _check_keys(path: Path, items: list[BenchmarkItem]) -> None:
    if not items:
        raise DataError(f"benchmark file {path} has no rows; a benchmark has items; restore it")
    if all(item.failure == EMPTY_KEY for item in items):
        raise DataError(
            f"benchmark file {path} has no answers, as test splits whose key is secret; nothing can be scored; take "
            "the split with answers"
        )
