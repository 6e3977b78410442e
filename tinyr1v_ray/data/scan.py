"""What is learned of every item before a run: its id, its images' facts, and which items must be left out.

Everything is looked at up front, because the data cursor is an integer: an item found unreadable in the middle of an
epoch would shift all later positions, and a resumed run would not know. Decoding runs in threads, keeps nothing but
hash and size of each image, and is remembered (`verified`), so that the next start only hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from tinyr1v_ray.config.base import shortened
from tinyr1v_ray.config.data import DataSettings
from tinyr1v_ray.data.images import ImageFacts
from tinyr1v_ray.data.items import ItemReader, ItemText
from tinyr1v_ray.data.verified import VerifiedImages
from tinyr1v_ray.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the number of items looked at and the number there are."""

_ITEMS_AT_ONCE = 256
_NUM_NAMED = 10


@dataclass(frozen=True)
class ItemFacts:
    """Where an item lies, its id, and its images."""

    reader_index: int
    row_index: int
    prompt_id: str
    images: tuple[ImageFacts, ...]


@dataclass(frozen=True)
class SkippedItem:
    """An item that is left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """Items in order, those left out, and the domains that occur."""

    items: tuple[ItemFacts, ...]
    skipped: tuple[SkippedItem, ...]
    domains: frozenset[str]


ItemCheck = Callable[[ItemText, tuple[ImageFacts, ...]], None]
"""Called with an item's text and image facts; raises DataError when the item cannot be a prompt."""

_Found = tuple[ItemText, tuple[ImageFacts, ...] | DataError]


def scan_items(
    readers: Sequence[ItemReader],
    settings: DataSettings,
    verified: VerifiedImages,
    check: ItemCheck,
    on_progress: Progress | None = None,
) -> Scan:
    """Look at every item of every source.

    The rule: an item that cannot be used costs itself, not the run. It is left out when it has no question or answer,
    an unreadable image, an id or content that came before, or `check` refuses it. Raises DataError when the share of
    these is above `data.max_skipped_share`, or nothing is left.
    """
    items: list[ItemFacts] = []
    skipped: list[SkippedItem] = []
    domains: set[str] = set()
    names: dict[str, str] = {}
    num_items = sum(len(reader) for reader in readers)
    for reader_index, reader in enumerate(readers):
        for row_index, (text, images) in enumerate(_inspected(reader, verified, settings.max_image_megapixels)):
            name = reader.name(row_index)
            try:
                if isinstance(images, DataError):
                    raise images
                check(text, images)
                facts = ItemFacts(reader_index, row_index, text.item_id or content_id(text, images), images)
                _refuse_duplicate(names.get(facts.prompt_id), facts.prompt_id, has_id=bool(text.item_id))
            except DataError as error:
                skipped.append(SkippedItem(name, str(error)))
            else:
                names[facts.prompt_id] = name
                items.append(facts)
                domains.add(text.domain)
            if on_progress is not None:
                on_progress(len(items) + len(skipped), num_items)
    verified.save()
    _check_share(len(items), skipped, settings.max_skipped_share)
    return Scan(tuple(items), tuple(skipped), frozenset(domains))


def content_id(text: ItemText, images: Sequence[ImageFacts]) -> str:
    """Id of an item without one: a hash of what it asks, so that it stays when rows are added or moved."""
    content: list[object] = [text.domain, text.question, text.answer, *(image.sha256 for image in images)]
    if text.other_answers or text.history:
        content += [text.other_answers, [(turn.role, turn.content) for turn in text.history]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _inspected(reader: ItemReader, verified: VerifiedImages, max_megapixels: float) -> Iterator[_Found]:
    def inspect(entry: tuple[ItemText, list[bytes] | DataError]) -> _Found:
        text, contents = entry
        if isinstance(contents, DataError):
            return text, contents
        try:
            return text, tuple(verified.inspect(content, max_megapixels) for content in contents)
        except DataError as error:
            return text, error

    entries = iter(reader)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        while chunk := list(islice(entries, _ITEMS_AT_ONCE)):
            yield from threads.map(inspect, chunk)


def describe_skipped(skipped: Sequence[SkippedItem]) -> str:
    """The first ten with their reasons, and how many more there are."""
    named = ", ".join(f"{item.name} ({item.reason.partition(';')[0]})" for item in skipped[:_NUM_NAMED])
    return named + (f" and {len(skipped) - _NUM_NAMED} more" if len(skipped) > _NUM_NAMED else "")


def _refuse_duplicate(first: str | None, prompt_id: str, has_id: bool) -> None:
    if first is None:
        return
    if has_id:
        raise DataError(
            f"same id {shortened(prompt_id)!r} as {first}; ids are unique over all sources; correct them or set "
            "data.id_column= (empty: ids are made from the content)"
        )
    raise DataError(f"same question, answer and images as {first}; an item stands once in the data; remove one")


def _check_share(num_kept: int, skipped: Sequence[SkippedItem], max_skipped_share: float) -> None:
    num_items = num_kept + len(skipped)
    if num_kept and len(skipped) <= max_skipped_share * num_items:
        return
    rule_and_remedy = skipped[0].reason.partition("; ")[2]
    raise DataError(
        f"{len(skipped)} of {num_items} items cannot be used: {describe_skipped(skipped)}; at most "
        f"{max_skipped_share:.1%} may be left out, and never all; {rule_and_remedy}"
        + (", or raise data.max_skipped_share" if num_kept else "")
    )
