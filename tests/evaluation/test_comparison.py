"""Crossed intervals against slow and exact computations, what they cover, and the rule by which a difference is one."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation import comparison
from tinyr1v_ray.evaluation.comparison import (
    Difference,
    crossed_difference,
    crossed_mean,
    holm_adjusted,
    mcnemar_by_seed,
)
from tinyr1v_ray.evaluation.statistics import Estimate, mcnemar_p_value, paired_bootstrap


def answers(seed: int, *shape: int, share: float = 0.5) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < share).astype(float)


def test_one_seed_is_the_paired_bootstrap_over_items() -> None:
    before, after = answers(1, 1, 150), answers(2, 1, 150, share=0.7)
    ours, other = crossed_difference([before], [after]), paired_bootstrap(before[0], after[0], num_resamples=10_000)
    assert ours.estimate.value == pytest.approx(other.value)
    assert ours.estimate.low == pytest.approx(other.low, abs=0.01)
    assert ours.estimate.high == pytest.approx(other.high, abs=0.01)


def test_against_a_slow_resampling_of_rows_and_columns() -> None:
    """Three seeds, two benchmarks: the same rows of both, columns of each, drawn index by index."""
    rng = np.random.default_rng(7)
    tables = [rng.normal(size=(3, 40)) + rng.normal(size=(3, 1)) for _ in range(2)]
    slow = []
    for _ in range(6000):
        rows = rng.integers(3, size=3)
        parts = [table[rows][:, rng.integers(40, size=40)].mean() for table in tables]
        slow.append(np.mean(parts))
    estimate = crossed_mean(tables)
    assert estimate.value == pytest.approx(np.mean([table.mean() for table in tables]))
    low, high = np.quantile(slow, [0.025, 0.975])
    assert estimate.low == pytest.approx(low, abs=0.06) and estimate.high == pytest.approx(high, abs=0.06)


def test_two_seeds_of_one_item_are_exact() -> None:
    """Draws are -1, 1 or their mean 3 with 1/4, 1/4, 1/2 (of -1 and 7): a quarter lies below zero, so p is 1/2."""
    difference = crossed_difference([[[0.0], [0.0]]], [[[-1.0], [7.0]]])
    assert difference.estimate == Estimate(3.0, -1.0, 7.0)
    assert difference.p_value == pytest.approx(0.5, abs=0.02)


def test_benchmarks_weigh_the_same_whatever_their_size() -> None:
    assert crossed_mean([np.ones((2, 5)), np.zeros((2, 500))]).value == 0.5


def test_a_seed_is_drawn_for_all_benchmarks_at_once() -> None:
    """What a seed gains on one benchmark it loses on the other, so the average does not depend on the seed."""
    effect = np.array([[-3.0], [0.0], [5.0]])
    estimate = crossed_mean([np.tile(effect, (1, 10)), np.tile(-effect, (1, 10))])
    assert estimate == Estimate(0.0, 0.0, 0.0)


def test_seeds_widen_the_interval() -> None:
    items = np.random.default_rng(3).normal(size=(1, 200))
    same, scattered = np.tile(items, (3, 1)), items + np.array([[-0.5], [0.0], [0.5]])
    narrow, wide = crossed_mean([same]), crossed_mean([scattered])
    assert narrow.value == pytest.approx(wide.value)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_intervals_cover_the_truth(spread: float) -> None:
    """Three trainings of 100 items: about 19 of 20 intervals hold zero.

    A few less where trainings scatter, since three are few; a few more where not, since noise counts a little twice.
    """
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(300):
        table = rng.normal(0, spread, (3, 1)) + rng.normal(0, 0.3, 100) + rng.normal(0, 0.3, (3, 100))
        estimate = crossed_mean([table], num_resamples=1000)
        held += estimate.low <= 0.0 <= estimate.high
    assert 0.90 <= held / 300 <= 0.985


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1, 0.15, 0.3])
def test_the_p_value_says_what_the_interval_says(shift: float) -> None:
    for seed in range(10):
        after = answers(seed + 100, 2, 80, share=0.5 + shift)
        difference = crossed_difference([answers(seed, 2, 80)], [after], num_resamples=2000)
        excludes = difference.estimate.low > 0 or difference.estimate.high < 0
        if abs(difference.p_value - 0.05) > 0.005:
            assert excludes == (difference.p_value < 0.05)


def test_equal_models_have_no_difference() -> None:
    table = answers(5, 3, 30)
    difference = crossed_difference([table], [table])
    assert difference == Difference(Estimate(0.0, 0.0, 0.0), 1.0, 1.0) and difference.sign == 0


@pytest.mark.parametrize("num_benchmarks", [1, 3])
def test_a_draw_of_zero_stands_on_both_sides_of_zero(num_benchmarks: int) -> None:
    """Sevenths and twenty-firsts add up to zero with whole numbers, hardly ever with floats; all have 21 items."""
    tables = [np.random.default_rng(seed).integers(-1, 2, (3, 21)) for seed in range(num_benchmarks)]
    num_resamples = 4000
    seeds_RS = np.concatenate([block for _, block in comparison._counts(3, num_resamples, (0, 0))]).astype(int)
    whole_R = np.zeros(num_resamples, int)
    for place, table in enumerate(tables, 1):
        items_RN = np.concatenate([block for _, block in comparison._counts(21, num_resamples, (0, place))]).astype(int)
        whole_R += (items_RN @ table.T * seeds_RS).sum(axis=1)
    smaller = min((whole_R <= 0).sum(), (whole_R >= 0).sum())
    assert (whole_R == 0).sum() > 50
    difference = crossed_difference([np.zeros((3, 21))] * num_benchmarks, tables, num_resamples=num_resamples)
    assert difference.p_value == min(1.0, 2 * (smaller + 1) / (num_resamples + 1))


def test_items_of_one_group_count_once() -> None:
    """Each item asked twice says nothing new: the interval is that of the half, and one by one it is too narrow."""
    single = [answers(1, 2, 60), answers(2, 2, 30)]
    twice = [np.repeat(table, 2, axis=1) for table in single]
    groups = [[place // 2 for place in range(table.shape[1])] for table in twice]
    assert crossed_mean(twice, groups) == crossed_mean(single)
    one_seed = [table[:1] for table in twice]
    whole, apart = crossed_mean(one_seed, groups), crossed_mean(one_seed)
    assert (apart.high - apart.low) / (whole.high - whole.low) == pytest.approx(0.5**0.5, abs=0.05)
    assert crossed_mean(single, [range(60), range(30)]) == crossed_mean(single)


def test_groups_of_several_sizes_against_a_slow_resampling() -> None:
    """Whole groups are drawn, and a metric is over as many items as they hold."""
    rng = np.random.default_rng(3)
    labels = [f"image {place}" for place in range(40) for _ in range(1 + place % 4)]
    table = np.array([[rng.random() < 0.3 + 0.1 * (len(label) % 3) for label in labels]], float)
    members = [[place for place, label in enumerate(labels) if label == name] for name in dict.fromkeys(labels)]
    slow = [
        table[0, [place for group in rng.integers(40, size=40) for place in members[group]]].mean() for _ in range(6000)
    ]
    estimate = crossed_difference([np.zeros_like(table)], [table], [labels]).estimate
    low, high = np.quantile(slow, [0.025, 0.975])
    assert estimate.value == table.mean()
    assert estimate.low == pytest.approx(low, abs=0.015) and estimate.high == pytest.approx(high, abs=0.015)


def test_holm_can_take_a_difference_back() -> None:
    clear, weak = Estimate(0.2, 0.1, 0.3), Estimate(-0.1, -0.2, -0.01)
    rows = holm_adjusted([Difference(weak, 0.03, 0.03), Difference(clear, 0.001, 0.001), Difference(weak, 0.04, 0.04)])
    assert [row.adjusted for row in rows] == pytest.approx([0.06, 0.003, 0.06])
    assert [row.sign for row in rows] == [0, 1, 0]
    assert Difference(weak, 0.04, 0.04).sign == -1


def test_an_interval_with_zero_is_never_a_difference() -> None:
    assert not Difference(Estimate(0.1, 0.0, 0.2), 0.01, 0.01).is_called


def test_mcnemar_pools_the_items_of_a_seed() -> None:
    before, after = [answers(1, 2, 20) > 0, answers(2, 2, 30) > 0], [answers(3, 2, 20) > 0, answers(4, 2, 30) > 0]
    wanted = []
    for seed in range(2):
        pairs = [
            (b, a)
            for early, late in zip(before, after, strict=True)
            for b, a in zip(early[seed], late[seed], strict=True)
        ]
        lost, won = sum(b and not a for b, a in pairs), sum(a and not b for b, a in pairs)
        tail = sum(math.comb(lost + won, k) for k in range(min(lost, won) + 1)) / 2 ** (lost + won)
        wanted.append(min(1.0, 2 * tail))
        assert mcnemar_p_value(*zip(*pairs, strict=True)) == pytest.approx(wanted[-1])
    assert mcnemar_by_seed(before, after) == pytest.approx(tuple(wanted))


def test_the_same_metrics_each_time() -> None:
    tables = [answers(1, 3, 50)]
    assert crossed_mean(tables) == crossed_mean(tables) != crossed_mean(tables, seed=1)


def test_metrics_do_not_depend_on_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [answers(1, 2, 50), answers(2, 2, 300)]
    kept = crossed_mean(tables, num_resamples=500)
    monkeypatch.setattr(comparison, "_DRAWN", comparison._Drawn(0))
    assert crossed_mean(tables, num_resamples=500) == kept
    monkeypatch.setattr(comparison, "_BLOCK_NUMBERS", 1)
    assert crossed_mean(tables, num_resamples=500) == pytest.approx(kept, abs=1e-12)


def test_drawn_counts_stay_within_their_bytes() -> None:
    """Of 1,000 bytes: 400 and 500 fit, 300 more push the one out that was used least recently; 1,001 never fit."""
    drawn = comparison._Drawn(1000)
    first, second = drawn.find((4, 100, 0, 1)), drawn.find((5, 100, 0, 2))
    assert first is not None and second is not None and (first.sum(axis=1) == 4).all() and drawn.num_bytes == 900
    assert drawn.find((4, 100, 0, 1)) is first
    assert drawn.find((3, 100, 0, 3)) is not None and drawn.num_bytes == 700
    assert drawn.find((4, 100, 0, 1)) is first and drawn.find((7, 143, 0, 1)) is None
    again = drawn.find((5, 100, 0, 2))
    assert again is not second and np.array_equal(again, second) and drawn.num_bytes <= 1000


def test_many_items_need_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 items and 60 draws: the drawn numbers would be 48 MB at once; kept they are 6 MB."""
    monkeypatch.setattr(comparison, "_DRAWN", comparison._Drawn(10_000_000))
    monkeypatch.setattr(comparison, "_BLOCK_NUMBERS", 1_000_000)
    table = np.ones((1, 100_000))
    tracemalloc.start()
    try:
        assert crossed_mean([table], num_resamples=60).value == 1.0
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


NO_TABLES = {
    "none": [],
    "no seed": [np.zeros((0, 3))],
    "no item": [np.zeros((2, 0))],
    "a vector": [np.zeros(3)],
    "not a number": [np.full((1, 2), np.nan)],
    "other seeds": [np.zeros((1, 2)), np.zeros((2, 2))],
}


@pytest.mark.parametrize("tables", NO_TABLES.values(), ids=NO_TABLES.keys())
def test_what_is_no_table_is_named(tables: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="same seeds by at least one item"):
        crossed_mean(tables)


def test_pairs_are_of_the_same_items() -> None:
    with pytest.raises(DataError, match="evaluate both"):
        crossed_difference([np.zeros((1, 3))], [np.zeros((1, 4))])
