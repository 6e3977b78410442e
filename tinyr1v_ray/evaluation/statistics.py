"""Intervals and tests for held-out metrics. Everything that is drawn is drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tinyr1v_ray.errors import DataError

NUM_DRAWN_AT_ONCE = 1_000_000
"""Bootstrap indices held in memory at a time."""


class Estimate(NamedTuple):
    """A value and its confidence interval."""

    value: float
    low: float
    high: float


def wilson_interval(num_correct: int, num_items: int, confidence: float = 0.95) -> Estimate:
    """A share and its score interval (Wilson 1927), which stays in [0, 1] and keeps a width at 0 and at 1.

    Raises DataError when there are no items, or more correct than items.

    >>> [round(value, 4) for value in wilson_interval(8, 10)]
    [0.8, 0.4902, 0.9433]
    """
    if not 0 <= num_correct <= num_items or num_items < 1:
        raise DataError(
            f"{num_correct} correct of {num_items} items; a share needs at least one item and at most all correct; "
            "check the counts"
        )
    z = _normal_quantile(confidence)
    share, spread = num_correct / num_items, z * z / num_items
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return Estimate(
        share, 0.0 if num_correct == 0 else centre - half, 1.0 if num_correct == num_items else centre + half
    )


def bootstrap_mean(values_N: ArrayLike, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0) -> Estimate:
    """A mean and its percentile bootstrap interval (Efron 1979) over items.

    One item, or all equal, gives an interval of no width. Raises DataError without items or with a NaN.
    """
    values_N = _checked(values_N)
    means = _resampled_means(values_N, num_resamples, seed)
    return _percentiles(float(values_N.mean()), means, confidence)


def paired_bootstrap(
    before_N: ArrayLike, after_N: ArrayLike, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Mean of after - before on the same items, with its percentile bootstrap interval over items.

    Pairing takes out how hard the items are, which two separate intervals would count twice. Raises DataError when the
    two differ in size.
    """
    before_N, after_N = _checked(before_N), _checked(after_N)
    _check_paired(before_N, after_N)
    return bootstrap_mean(after_N - before_N, confidence, num_resamples, seed)


def mcnemar_p_value(before_correct_N: Sequence[bool], after_correct_N: Sequence[bool]) -> float:
    """Exact two-sided p-value (McNemar 1947, binomial) that one of two systems is right more often on the same items.

    Only items on which exactly one is right count; without any the value is 1. Raises DataError when sizes differ.

    >>> mcnemar_p_value([True] * 5 + [False] * 5, [True] * 10)
    0.0625
    """
    before_N, after_N = np.asarray(before_correct_N, bool), np.asarray(after_correct_N, bool)
    _check_paired(before_N, after_N)
    num_lost, num_won = int((before_N & ~after_N).sum()), int((~before_N & after_N).sum())
    num_discordant = num_lost + num_won
    tail, term = 0, 1
    for k in range(min(num_lost, num_won) + 1):
        tail += term
        term = term * (num_discordant - k) // (k + 1)
    return min(1.0, 2 * tail / 2**num_discordant)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979), in the order given: rejecting those below a level keeps the family's error at it.

    >>> [round(value, 6) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _check_paired(before_N: np.ndarray, after_N: np.ndarray) -> None:
    if before_N.shape != after_N.shape:
        raise DataError(
            f"{before_N.size} items before and {after_N.size} after; pairs are of the same items; evaluate both on them"
        )


def _normal_quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise DataError(f"confidence {confidence}; it lies between 0 and 1; use 0.95 for 95 %")
    return NormalDist().inv_cdf((1.0 + confidence) / 2.0)


def _checked(values_N: ArrayLike) -> np.ndarray:
    values_N = np.asarray(values_N, np.float64)
    if values_N.ndim != 1 or values_N.size == 0 or not np.isfinite(values_N).all():
        raise DataError(
            f"values of shape {values_N.shape}; a mean needs a vector of finite values, at least one; check the items"
        )
    return values_N


def _resampled_means(values_N: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """float64 [num_resamples]; the same whatever the number drawn at once, since rows are drawn in order."""
    generator = np.random.default_rng(seed)
    at_once = max(1, NUM_DRAWN_AT_ONCE // values_N.size)
    means = []
    for start in range(0, num_resamples, at_once):
        num_rows = min(at_once, num_resamples - start)
        means.append(values_N[generator.integers(values_N.size, size=(num_rows, values_N.size))].mean(axis=1))
    return np.concatenate(means)


def _percentiles(value: float, means: np.ndarray, confidence: float) -> Estimate:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high))
