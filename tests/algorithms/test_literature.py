"""The length baselines of the literature, against slow computations written from their papers."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyr1v_ray.algorithms.baselines import grpo_advantages
from tinyr1v_ray.algorithms.ddca import ddca_advantages
from tinyr1v_ray.algorithms.dler import dler_advantages
from tinyr1v_ray.algorithms.length_penalty import length_penalty_advantages
from tinyr1v_ray.errors import DataError

answers = st.lists(st.tuples(st.booleans(), st.integers(1, 400)), min_size=1, max_size=10)


def z_scores(values):
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / deviation if deviation else 0.0 for value in values]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def slow_grpo(rewards):
    mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
    return [(reward - mean) / (deviation + 1e-6) if deviation else 0.0 for reward in rewards]


@given(answers, st.floats(0, 2))
@settings(max_examples=100)
def test_ddca_is_its_formula(group, beta):
    correct, lengths = zip(*group, strict=True)
    right = [index for index, is_right in enumerate(correct) if is_right]
    scores = dict(zip(right, map(sigmoid, z_scores([lengths[i] for i in right])), strict=True)) if right else {}
    want = slow_grpo([float(is_right) for is_right in correct])
    for index, score in scores.items():
        want[index] -= beta * len(right) / len(group) * (score - statistics.fmean(scores.values()))
    np.testing.assert_allclose(ddca_advantages(correct, lengths, beta), want, atol=1e-9)


def test_ddca_by_hand():
    """Lengths 10 and 30 are one deviation below and above their mean: s = 0.2689 and 0.7311; pass rate 1/2."""
    got = ddca_advantages([True, True, False, False], [10, 30, 99, 1], beta=1.0)
    half_gap = (1 / (1 + math.exp(-1)) - 0.5) / 2
    np.testing.assert_allclose(got, [1 + half_gap, 1 - half_gap, -1, -1], atol=1e-5)


@given(answers, st.floats(0, 0.9))
@settings(max_examples=100)
def test_the_length_penalty_is_its_formula(group, alpha):
    correct, lengths = zip(*group, strict=True)
    right = [index for index, is_right in enumerate(correct) if is_right]
    rewards = [1.0 if is_right else 0.1 for is_right in correct]
    want = list(rewards)
    for index, z in zip(right, z_scores([lengths[i] for i in right]) if right else [], strict=True):
        want[index] *= 1 - alpha * sigmoid(z)
    got = length_penalty_advantages(rewards, lengths, correct, alpha)
    np.testing.assert_allclose(got, slow_grpo(want), atol=1e-6)


def test_without_weight_both_are_grpo():
    correct, lengths = [True, True, False, True], [9, 5, 3, 70]
    np.testing.assert_array_equal(ddca_advantages(correct, lengths, 0.0), grpo_advantages([1, 1, 0, 1]))
    got = length_penalty_advantages([1, 1, 0, 1], lengths, correct, 0.0)
    np.testing.assert_array_equal(got, grpo_advantages([1, 1, 0, 1]))


@given(st.lists(answers, min_size=1, max_size=6), st.integers(1, 500))
@settings(max_examples=100)
def test_dler_is_its_formula(step, length_limit):
    centred = []
    for group in step:
        kept = [float(is_right and length <= length_limit) for is_right, length in group]
        centred.append([reward - statistics.fmean(kept) for reward in kept])
    flat = [value for row in centred for value in row]
    mean, deviation = statistics.fmean(flat), statistics.pstdev(flat)
    got = dler_advantages([tuple(zip(*group, strict=True)) for group in step], length_limit)
    for advantages_G, row in zip(got, centred, strict=True):
        want = [(value - mean) / (deviation + 1e-6) for value in row]
        np.testing.assert_allclose(advantages_G, want, atol=1e-9)


def test_dler_weighs_groups_by_their_spread_and_counts_ends_exactly():
    """Deviation over the step: four answers at +-1/2 and two at 0 give sqrt(4 x 0.25 / 6)."""
    got = dler_advantages([([1, 1], [50, 51]), ([1, 0], [9, 9]), ([1, 1], [9, 50])], length_limit=50)
    unit = 0.5 / (math.sqrt(1 / 6) + 1e-6)
    np.testing.assert_allclose(got, [[unit, -unit], [unit, -unit], [0, 0]], atol=1e-12)
    assert dler_advantages([], 50) == []
    assert [row.tolist() for row in dler_advantages([([], []), ([0, 0], [3, 4])], 50)] == [[], [0.0, 0.0]]


@pytest.mark.parametrize("lengths", [[3, -1], [3, float("nan")], [3]])
def test_bad_lengths_are_refused(lengths):
    with pytest.raises(DataError):
        ddca_advantages([True, False], lengths, 0.2)
    with pytest.raises(DataError):
        length_penalty_advantages([1, 0], lengths, [True, False], 0.2)
    with pytest.raises(DataError):
        dler_advantages([([1, 0], lengths)], 50)
