"""The three pools of items, and the seed of each item."""

from __future__ import annotations

from enum import StrEnum

import numpy as np


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


NUM_ITEMS = {Pool.WARMUP: 2000, Pool.TRAIN: 2000, Pool.EVALUATION: 1000}
"""Items of a domain that are written to a pool's file."""


def item_rng(seed: int, domain: Domain, pool: Pool, index: int) -> np.random.Generator:
    """The item's own generator, so that item `index` is the same whatever number of items is drawn."""
    return np.random.default_rng([seed, list(Domain).index(domain), list(Pool).index(pool), index])
