"""Items of any domain and pool, by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tinyr1v_ray.miniature.tasks.item import Item
from tinyr1v_ray.miniature.tasks.mathematics import math_item
from tinyr1v_ray.miniature.tasks.ocr import ocr_item
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool, item_rng
from tinyr1v_ray.miniature.tasks.structure import structure_item

MAKERS: dict[Domain, Callable[[Pool, np.random.Generator], Item]] = {
    Domain.OCR: ocr_item,
    Domain.MATH: math_item,
    Domain.STRUCTURE: structure_item,
}


def items(domain: Domain, pool: Pool, count: int, seed: int) -> Iterator[Item]:
    """`count` items, no two of which have the same sources and question.

    An item that repeats an earlier one is drawn again from the same generator.
    """
    seen: set[tuple[tuple[str, ...], str]] = set()
    for index in range(count):
        rng = item_rng(seed, domain, pool, index)
        item = MAKERS[domain](pool, rng)
        while (item.sources, item.question) in seen:
            item = MAKERS[domain](pool, rng)
        seen.add((item.sources, item.question))
        yield item
