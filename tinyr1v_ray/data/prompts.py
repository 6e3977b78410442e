"""The table of prompts: a data set in the model's tokens, in an order that an integer can resume.

Opening a table looks at every item once (`scan`), but builds no prompt. Tokens are made, and images written to the
store, when a prompt is first asked for; a table keeps ids, hashes and sizes in memory, never pictures.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from tinyr1v_ray.config.data import DataSettings
from tinyr1v_ray.data.images import ImageFacts, store_image
from tinyr1v_ray.data.items import ItemReader, ItemText, has_column, image_like_columns
from tinyr1v_ray.data.processor import PromptProcessor
from tinyr1v_ray.data.scan import ItemFacts, Progress, describe_skipped, scan_items
from tinyr1v_ray.data.sources import Source, load_source
from tinyr1v_ray.data.verified import VerifiedImages
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.types import ImageRef, Prompt

_logger = logging.getLogger(__name__)

_MAX_TOKENS_PER_BYTE = 3
"""A byte-level tokenizer makes at most a token a byte, and Unicode normalisation at most triples the bytes."""
_MAX_TEMPLATE_TOKENS_PER_IMAGE = 16
_NUM_AHEAD = 32
"""Prompts that are made ready before they are asked for."""


@dataclass(frozen=True)
class TableOptions:
    """What a table needs besides the data's own settings.

    `image_folder` is the store that every node can read; `cache_folder` keeps converted data; `seed` is the run's;
    `max_prompt_tokens` is the context less the longest completion, image tokens included.
    """

    image_folder: Path
    cache_folder: Path
    max_prompt_tokens: int
    seed: int = 0
    on_progress: Progress | None = None


class PromptTable:
    """Prompts of all sources. Implements `ports.PromptSource`.

    `skipped` names the items that were left out, `domains` are those that occur.
    """

    def __init__(
        self, settings: DataSettings, readers: tuple[ItemReader, ...], processor: PromptProcessor, options: TableOptions
    ) -> None:
        self._settings, self._readers, self._processor, self._options = settings, readers, processor, options
        self._overhead = len(self._encode(ItemText("", "", "", "", ""), 0))
        names = [reader.source.name for reader in readers]
        verified = VerifiedImages.for_sources(options.cache_folder, names)
        scan = scan_items(readers, settings, verified, self._check_fits, options.on_progress)
        self._items, self.skipped, self.domains = scan.items, scan.skipped, scan.domains
        self._order = lru_cache(maxsize=2)(self._draw_order)
        if self.skipped:
            of = len(self._items) + len(self.skipped)
            _logger.warning("%d of %d items are left out: %s", len(self.skipped), of, describe_skipped(self.skipped))

    def __len__(self) -> int:
        return len(self._items)

    @property
    def max_images(self) -> int:
        """Largest number of images in a prompt; 0 without any."""
        return max(len(facts.images) for facts in self._items)

    def __getitem__(self, index: int) -> Prompt:
        """The prompt of an item, by its place in the data (skipped ones not counted), as in epoch 0."""
        facts = self._items[index]
        reader = self._readers[facts.reader_index]
        text = reader.text(facts.row_index)
        return Prompt(
            facts.prompt_id,
            text.domain,
            text.question,
            text.answer,
            self._encode(text, len(facts.images)),
            self._references(facts),
            text.difficulty,
            other_answers=text.other_answers,
        )

    def iterate(self, cursor: int) -> Iterator[Prompt]:
        """Prompts from position `cursor` on, endlessly; each epoch has every item once, in an order of its own.

        A thread prepares the next few while others are sampled: images take a while to be read and hashed. What is at
        fault with a prompt is raised when its turn comes.
        """
        reader = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        try:
            ahead = deque(reader.submit(self._at, position) for position in range(cursor, cursor + _NUM_AHEAD))
            for position in count(cursor + _NUM_AHEAD):
                yield ahead.popleft().result()
                ahead.append(reader.submit(self._at, position))
        finally:
            reader.shutdown(wait=False, cancel_futures=True)

    def _at(self, cursor: int) -> Prompt:
        epoch, place = divmod(cursor, len(self))
        return replace(self[int(self._order(epoch)[place])], epoch=epoch, position=cursor)

    def in_order(self, limit: int | None = None) -> Iterator[Prompt]:
        """Each prompt once, in the data's order; with a `limit` below the size, that many, evenly spaced.

        Even spacing keeps a limited evaluation representative where the data is sorted, without a seed.
        """
        size = len(self) if limit is None else min(limit, len(self))
        return (self[index * len(self) // size] for index in range(size))

    def _draw_order(self, epoch: int) -> np.ndarray:
        if not self._settings.shuffle:
            return np.arange(len(self))
        return np.random.default_rng([self._options.seed, epoch]).permutation(len(self))

    def _encode(self, text: ItemText, num_images: int) -> tuple[int, ...]:
        asked = self._settings.question_template.replace("{question}", text.question)
        rendered = self._processor.render(asked, num_images, self._settings.system_prompt, text.history)
        return self._processor.encode(rendered, num_images)

    def _check_fits(self, text: ItemText, images: tuple[ImageFacts, ...]) -> None:
        """Refuse what could not be a prompt. Most items pass on an upper bound of their length, without tokenising."""
        image_tokens = sum(self._num_tokens(image) for image in images)
        bound = self._overhead + _MAX_TOKENS_PER_BYTE * len(text.question.encode())
        bound += image_tokens + _MAX_TEMPLATE_TOKENS_PER_IMAGE * len(images)
        if bound <= self._options.max_prompt_tokens and "<" not in text.question and not text.history:
            return
        num_tokens = len(self._encode(text, len(images))) + image_tokens - len(images)
        if num_tokens > self._options.max_prompt_tokens:
            raise DataError(
                f"prompt of {num_tokens} tokens, {image_tokens} of them image; with the longest completion it must fit "
                f"the context, which leaves {self._options.max_prompt_tokens}; lower model.max_pixels or "
                "rollout.max_tokens, raise model.max_length, or remove the item"
            )

    def _num_tokens(self, image: ImageFacts) -> int:
        return self._processor.num_image_tokens(image.width_px, image.height_px)

    def _references(self, facts: ItemFacts) -> tuple[ImageRef, ...]:
        paths = [self._options.image_folder / image.file_name for image in facts.images]
        if not all(path.is_file() for path in paths):
            self._store_images(facts)
        return tuple(
            ImageRef(str(path), image.sha256, image.num_bytes, image.width_px, image.height_px, self._num_tokens(image))
            for path, image in zip(paths, facts.images, strict=True)
        )

    def _store_images(self, facts: ItemFacts) -> None:
        contents = self._readers[facts.reader_index].images(facts.row_index)
        for content, image in zip(contents, facts.images, strict=True):
            store_image(self._options.image_folder, content, image)


def build_prompt_table(
    settings: DataSettings,
    purpose: Literal["train", "evaluation"],
    processor: PromptProcessor,
    options: TableOptions,
) -> PromptTable:
    """Load `data.train` or `data.evaluation`. Raises DataError for bad sources, columns, items and too many skipped."""
    names = settings.train if purpose == "train" else settings.evaluation
    if not names:
        raise DataError(f"data.{purpose} is empty; it names at least one source; name a file or miniature:ocr")
    sources = [load_source(name, purpose, options.cache_folder) for name in names]
    told_apart = _told_apart(settings, sources, purpose, options, processor.reads_images)
    readers = tuple(ItemReader(each, source) for each, source in told_apart)
    return PromptTable(settings, readers, processor, options)


def _told_apart(
    settings: DataSettings, sources: Sequence[Source], purpose: str, options: TableOptions, reads_images: bool
) -> Iterator[tuple[DataSettings, Source]]:
    """The settings for each source: where only some have the image column, the others are without images.

    Where none has it, those for the other purpose are asked; where these do not, either, the name is at fault, which
    `ItemReader` says; a model that reads text alone needs no such column. Raises DataError for a source that seems to
    have its images under another name.
    """
    column = settings.image_column
    lacking = [source for source in sources if column and not has_column(source, column)]
    if reads_images and lacking and len(lacking) == len(sources):
        other, names = ("evaluation", settings.evaluation) if purpose == "train" else ("train", settings.train)
        if not any(has_column(load_source(name, other, options.cache_folder), column) for name in names):
            lacking = []
    without = settings.model_copy(update={"image_column": ""})
    for source in sources:
        if source in lacking:
            if other_name := image_like_columns(source):
                raise DataError(
                    f"data source {source.name} has no column {column!r} but one named {other_name[0]!r}; images have "
                    "one name in all sources; rename it, or remove it where it holds none"
                )
            if reads_images:
                _logger.warning("%s has no column %r: its items are asked without images", source.name, column)
        yield (without if source in lacking else settings), source
