"""The three pools of items, and the seed of each item."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import numpy as np

from tinyr1v_ray.errors import DataError


class Pool(StrEnum):
    """Who may see an item. Digit samples and table rows belong to exactly one pool."""

    WARMUP = "warmup"
    TRAIN = "train"
    EVALUATION = "evaluation"


class Domain(StrEnum):
    """What an item is about; one specialist is trained for each."""

    OCR = "ocr"
    MATH = "math"
    STRUCTURE = "structure"


Kind = TypeVar("Kind", Domain, Pool)


def named(kind: type[Kind], name: str, what: str) -> Kind:
    """The member of a name; raises DataError for an unknown one."""
    try:
        return kind(name)
    except ValueError:
        known = ", ".join(kind)
        raise DataError(f"miniature has no {what} {name!r}; its {what}s are {known}; use one of them") from None


NUM_ITEMS = {Pool.WARMUP: 2000, Pool.TRAIN: 2000, Pool.EVALUATION: 1000}
"""Items of a domain that are written to a pool's file."""


def item_rng(seed: int, domain: Domain, pool: Pool, index: int) -> np.random.Generator:
    """The item's own generator, so that item `index` is the same whatever number of items is drawn."""
    return np.random.default_rng([seed, list(Domain).index(domain), list(Pool).index(pool), index])
