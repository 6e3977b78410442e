"""Each interval and test against a computation of another kind: published values, brute force, simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation import statistics
from tinyr1v_ray.evaluation.statistics import bootstrap_mean, holm, mcnemar_p_value, paired_bootstrap, wilson_interval


@pytest.mark.parametrize(
    "num_correct, num_items, low, high",
    [  # R: prop.test(x, n, correct = FALSE)$conf.int
        (0, 10, 0.0, 0.2775328),
        (8, 10, 0.4901625, 0.9433178),
        (10, 10, 0.7224672, 1.0),
        (1, 1, 0.2065493, 1.0),
    ],
)
def test_wilson_against_published_values(num_correct, num_items, low, high):
    got = wilson_interval(num_correct, num_items)
    assert got == pytest.approx((num_correct / num_items, low, high), abs=1e-6)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.5, 0.999))
@settings(max_examples=100)
def test_wilson_ends_solve_the_score_equation(num_items, share, confidence):
    num_correct = round(share * num_items)
    value, low, high = wilson_interval(num_correct, num_items, confidence)
    assert 0 <= low <= value <= high <= 1 and low < high
    z = _quantile_by_bisection((1 + confidence) / 2)
    for end, is_edge in ((low, num_correct == 0), (high, num_correct == num_items)):
        if not is_edge:
            assert (value - end) ** 2 == pytest.approx(z * z * end * (1 - end) / num_items, rel=1e-6, abs=1e-12)


def _quantile_by_bisection(probability):
    low, high = -10.0, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + math.erf(middle / math.sqrt(2))) / 2 < probability else (low, middle)
    return low


def test_wilson_covers_as_often_as_it_says():
    share, num_items = 0.8, 300
    weights = [math.comb(num_items, k) * share**k * (1 - share) ** (num_items - k) for k in range(num_items + 1)]
    intervals = [wilson_interval(k, num_items) for k in range(num_items + 1)]
    covered = sum(weight for weight, (_, low, high) in zip(weights, intervals, strict=True) if low <= share <= high)
    assert 0.94 < covered < 0.96


def test_bootstrap_of_three_values_against_all_resamples():
    values = [1.0, 4.0, 10.0]
    means = [sum(draw) / 3 for draw in itertools.product(values, repeat=3)]
    want = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    got = bootstrap_mean(values, confidence=0.8, num_resamples=20000)
    assert got.value == 5.0 and (got.low, got.high) == pytest.approx(tuple(want))


def test_bootstrap_against_the_normal_interval_on_many_values():
    values = np.random.default_rng(1).gamma(2.0, 20.0, 4000)
    got = bootstrap_mean(values)
    half = 1.959964 * values.std(ddof=1) / math.sqrt(values.size)
    assert got.value == values.mean()
    assert got.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert got.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_bootstrap_repeats_by_seed_whatever_the_chunks(monkeypatch):
    values = np.arange(50.0) ** 2
    first = bootstrap_mean(values, seed=7)
    assert bootstrap_mean(values, seed=7) == first != bootstrap_mean(values, seed=8)
    for at_once in (1, 49, 50 * 999):
        monkeypatch.setattr(statistics, "NUM_DRAWN_AT_ONCE", at_once)
        assert bootstrap_mean(values, seed=7) == first


def test_no_spread_no_width():
    assert bootstrap_mean([3.0]) == (3.0, 3.0, 3.0)
    assert bootstrap_mean([2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_pairing_takes_out_how_hard_the_items_are():
    generator = np.random.default_rng(2)
    hardness = generator.normal(0, 10, 500)
    before, after = hardness + generator.normal(0, 1, 500), hardness + 0.5 + generator.normal(0, 1, 500)
    got = paired_bootstrap(before, after)
    assert got.value == pytest.approx((after - before).mean())
    assert 0 < got.low < got.value < got.high
    alone = bootstrap_mean(after)
    assert got.high - got.low < 0.2 * (alone.high - alone.low)
    swapped = paired_bootstrap(after, before)
    assert swapped == pytest.approx((-got.value, -got.high, -got.low))


@pytest.mark.parametrize("num_lost, num_won", [(0, 0), (0, 1), (1, 3), (5, 5), (2, 9), (0, 12), (6, 7)])
def test_mcnemar_against_all_coin_tosses(num_lost, num_won):
    before = [True] * num_lost + [False] * num_won + [True, False]
    after = [False] * num_lost + [True] * num_won + [True, False]
    num_items = num_lost + num_won
    distance = abs(num_lost - num_won)
    as_far = sum(math.comb(num_items, k) for k in range(num_items + 1) if abs(2 * k - num_items) >= distance)
    want = as_far / 2**num_items
    assert mcnemar_p_value(before, after) == pytest.approx(want, rel=1e-12)
    assert mcnemar_p_value(after, before) == mcnemar_p_value(before, after)


def test_mcnemar_of_many_items_stays_finite_and_near_the_normal_value():
    before, after = [True] * 2000 + [False] * 2120, [False] * 2000 + [True] * 2120
    z = (120 - 1) / math.sqrt(4120)
    assert mcnemar_p_value(before, after) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.floats(0.001, 0.5))
@settings(max_examples=150)
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    adjusted = holm(p_values)
    rejected, remaining = set(), sorted(range(len(p_values)), key=lambda index: p_values[index])
    while remaining and p_values[remaining[0]] * len(remaining) <= level:
        rejected.add(remaining.pop(0))
    assert {index for index, value in enumerate(adjusted) if value <= level} == rejected
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))


def test_holm_of_nothing_and_in_the_order_given():
    assert holm([]) == []
    assert holm([0.5, 0.001, 0.02]) == pytest.approx([0.5, 0.003, 0.04])


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson_interval(1, 0),
        lambda: wilson_interval(3, 2),
        lambda: wilson_interval(-1, 2),
        lambda: wilson_interval(1, 2, confidence=1.0),
        lambda: bootstrap_mean([]),
        lambda: bootstrap_mean([1.0, float("nan")]),
        lambda: bootstrap_mean([[1.0]]),
        lambda: paired_bootstrap([1.0, 2.0], [1.0]),
        lambda: mcnemar_p_value([True], [True, False]),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(DataError) as caught:
        call()
    assert len(str(caught.value).split("; ")) == 3
