"""Differences between models on shared items over several seeds, and which of them may be called one.

Answers of a model are a table of seeds by items for each benchmark. A model's metric is the mean over benchmarks of
the mean over seeds and items: every benchmark weighs the same, whatever its size.

Intervals are of a crossed ("pigeonhole") bootstrap (Owen 2007, arXiv 0712.1111): seeds are drawn with replacement, the
same draw for every benchmark, and independently of them the items of each benchmark; a resampled table is the rows and
columns that were drawn. Items that belong together (two questions about one image) are drawn together: they are right
or wrong together, so that one by one their intervals would come out too narrow. Two models are compared on the same
seeds and items, so the draws are of their differences.
What is due to items and to noise is counted in full or a little twice; of what is due to seeds the share (S - 1)/S,
since S seeds are drawn from S. With one seed only items are drawn: the interval then holds for that seed alone.

The p-value belongs to the interval: twice the smaller share of draws on either side of zero, so that it is below 0.05
where the 95 % interval excludes zero. Holm's correction (1979) over all rows of a table makes them `adjusted`, and a
difference is called one only when its adjusted value is below 0.05 as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.statistics import Estimate, holm, mcnemar_p_value

LEVEL = 0.05
NUM_RESAMPLES = 10_000
_BLOCK_NUMBERS = 4_000_000
"""Drawn numbers under way at once, 32 MB as float64; any number of items fits."""
_KEPT_BYTES = 256 * 1024**2
"""Of drawn counts that are kept for the next row, a byte each; what does not fit is drawn anew for every row."""
_MOST_COUNT = 255
_DIGITS = 9
"""Decimals of a drawn metric: far beyond any that is shown, and rounding noise is no side of zero."""

Groups = Sequence[Sequence[Hashable]]
"""For each benchmark what each of its items belongs to."""


@dataclass(frozen=True)
class Difference:
    """A difference after - before, its interval, and its p-value before and after Holm's correction.

    >>> Difference(Estimate(0.1, 0.05, 0.15), 0.001, 0.06).is_called
    False
    """

    estimate: Estimate
    p_value: float
    adjusted: float

    @property
    def is_called(self) -> bool:
        """Whether the interval excludes zero and the adjusted p-value is below LEVEL."""
        return (self.estimate.low > 0 or self.estimate.high < 0) and self.adjusted < LEVEL

    @property
    def sign(self) -> int:
        """1 or -1 for a difference that is called one, else 0."""
        if not self.is_called:
            return 0
        return 1 if self.estimate.value > 0 else -1


def crossed_mean(
    tables_SN: Sequence[ArrayLike],
    groups_N: Groups | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """A model's metric with its 95 % interval; one float table [S, N] a benchmark, S the same in all.

    Without `groups_N` every item stands alone.
    Raises DataError without a benchmark, a seed or an item, with a value that is not finite, or when S differs.
    """
    checked = _checked(tables_SN)
    return _interval(_point(checked), _draws(checked, groups_N, num_resamples, seed))


def crossed_difference(
    before_SN: Sequence[ArrayLike],
    after_SN: Sequence[ArrayLike],
    groups_N: Groups | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Difference of two models on the same seeds and items; `adjusted` equals `p_value` until `holm_adjusted`.

    Raises DataError when the two have tables of other shapes, and where `crossed_mean` does.
    """
    before, after = _checked(before_SN), _checked(after_SN)
    shapes = [[table.shape for table in tables] for tables in (before, after)]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"tables of {shapes[0]} before and {shapes[1]} after; pairs are of the same seeds and items; evaluate "
            "both on them"
        )
    tables = [late - early for early, late in zip(before, after, strict=True)]
    draws = _draws(tables, groups_N, num_resamples, seed)
    p_value = two_sided_p_value(draws)
    return Difference(_interval(_point(tables), draws), p_value, p_value)


def two_sided_p_value(draws_R: np.ndarray) -> float:
    """Twice the smaller share of draws on either side of zero, each side with one more, at most 1.

    >>> two_sided_p_value(np.full(999, 0.2)), two_sided_p_value(np.zeros(10))
    (0.002, 1.0)
    """
    num_low, num_high = int((draws_R <= 0).sum()), int((draws_R >= 0).sum())
    return min(1.0, 2 * (min(num_low, num_high) + 1) / (draws_R.size + 1))


def holm_adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """The rows of one table with Holm's correction over all of them."""
    adjusted = holm([row.p_value for row in differences])
    return [replace(row, adjusted=value) for row, value in zip(differences, adjusted, strict=True)]


def mcnemar_by_seed(before_SN: Sequence[ArrayLike], after_SN: Sequence[ArrayLike]) -> tuple[float, ...]:
    """McNemar's exact p-value of each seed, over the pooled items of all benchmarks; bool tables [S, N].

    It takes items for independent: where some belong together it comes out too small.
    """
    before, after = (
        np.concatenate([np.asarray(table, bool) for table in tables], 1) for tables in (before_SN, after_SN)
    )
    return tuple(mcnemar_p_value(one, other) for one, other in zip(before, after, strict=True))


def _checked(tables_SN: Sequence[ArrayLike]) -> list[np.ndarray]:
    tables = [np.asarray(table, np.float64) for table in tables_SN]
    fits = bool(tables) and all(table.ndim == 2 and table.size and np.isfinite(table).all() for table in tables)
    if not fits or len({len(table) for table in tables}) > 1:
        raise DataError(
            f"tables of shapes {[table.shape for table in tables]}; each is of the same seeds by at least one item, "
            "all finite; check the answers"
        )
    return tables


def _point(tables_SN: Sequence[np.ndarray]) -> float:
    return float(np.mean([table.mean() for table in tables_SN]))


def _draws(tables_SN: Sequence[np.ndarray], groups_N: Groups | None, num_resamples: int, seed: int) -> np.ndarray:
    """float64 [num_resamples]: the metric of each resampled table.

    Counts stay whole and sums are divided once, and what adding up several benchmarks leaves of a zero is rounded away:
    a draw of zero stands on both sides of zero.
    """
    if groups_N is None:
        groups_N = [range(table.shape[1]) for table in tables_SN]
    num_seeds = len(tables_SN[0])
    seeds_RS = np.concatenate([block for _, block in _counts(num_seeds, num_resamples, (seed, 0))])
    metrics_R = np.zeros(num_resamples)
    for place, (table, labels) in enumerate(zip(tables_SN, groups_N, strict=True), 1):
        sums_MS, sizes_M = _by_group(table, labels)
        for start, block_RM in _counts(len(sizes_M), num_resamples, (seed, place)):
            rows = slice(start, start + len(block_RM))
            metrics_R[rows] += ((block_RM @ sums_MS) * seeds_RS[rows]).sum(axis=1) / (block_RM @ sizes_M)
    return np.round(metrics_R / (num_seeds * len(tables_SN)), _DIGITS)


def _by_group(table_SN: np.ndarray, labels_N: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sums [M, S] and sizes [M] of the M groups, in the order in which they first occur.

    >>> _by_group(np.array([[1.0, 2.0, 4.0]]), "aba")
    (array([[5.],
           [2.]]), array([2., 1.]))
    """
    places = {label: place for place, label in enumerate(dict.fromkeys(labels_N))}
    places_N = [places[label] for label in labels_N]
    sums_MS = np.zeros((len(places), len(table_SN)))
    np.add.at(sums_MS, places_N, table_SN.T)
    return sums_MS, np.bincount(places_N).astype(np.float64)


def _counts(size: int, num_resamples: int, seed: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    """How often each of `size` is drawn, in blocks of rows [at most _BLOCK_NUMBERS / size, size] as float64."""
    kept = _DRAWN.find((size, num_resamples, *seed))
    if kept is None:
        yield from _fresh_counts(size, num_resamples, seed)
        return
    num_rows = max(1, _BLOCK_NUMBERS // size)
    for start in range(0, num_resamples, num_rows):
        yield start, kept[start : start + num_rows].astype(np.float64)


def _fresh_counts(size: int, num_resamples: int, seed: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    """The same counts drawn block by block; they do not depend on the blocks."""
    generator, shares = np.random.default_rng(seed), np.full(size, 1 / size)
    num_rows = max(1, _BLOCK_NUMBERS // size)
    for start in range(0, num_resamples, num_rows):
        drawn = generator.multinomial(size, shares, size=min(num_rows, num_resamples - start))
        yield start, drawn.astype(np.float64)


class _Drawn:
    """Counts that were drawn, since the rows of a report draw on the same items; at most `limit_bytes` of them.

    The least recently used go first. What is larger than the limit alone, or has a count above a byte, is not kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._tables: OrderedDict[tuple[int, int, int, int], np.ndarray] = OrderedDict()

    @property
    def num_bytes(self) -> int:
        """Bytes that are kept."""
        return sum(table.nbytes for table in self._tables.values())

    def find(self, key: tuple[int, int, int, int]) -> np.ndarray | None:
        """uint8 [num_resamples, size] of (size, num_resamples, seed, place); None where it may not be kept."""
        if key in self._tables:
            self._tables.move_to_end(key)
            return self._tables[key]
        size, num_resamples, *seed = key
        if size * num_resamples > self._limit_bytes:
            return None
        while self.num_bytes + size * num_resamples > self._limit_bytes:
            self._tables.popitem(last=False)
        table = np.empty((num_resamples, size), np.uint8)
        for start, block in _fresh_counts(size, num_resamples, (seed[0], seed[1])):
            if block.max() > _MOST_COUNT:
                return None
            table[start : start + len(block)] = block
        self._tables[key] = table
        return table


_DRAWN = _Drawn(_KEPT_BYTES)


def _interval(value: float, draws_R: np.ndarray) -> Estimate:
    low, high = np.quantile(draws_R, [LEVEL / 2, 1 - LEVEL / 2])
    return Estimate(value, float(low), float(high))
