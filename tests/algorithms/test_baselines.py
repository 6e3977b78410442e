"""The baselines' formulas by hand, their degenerate cases, and which groups are taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyr1v_ray.algorithms.advantages import DynamicSampling, build_accept
from tinyr1v_ray.algorithms.baselines import (
    dapo_advantages,
    dr_grpo_advantages,
    grpo_advantages,
    is_informative,
    overlong_penalties,
)
from tinyr1v_ray.config.algorithm import AlgorithmSettings, DapoConfig
from tinyr1v_ray.errors import DataError, RolloutError
from tinyr1v_ray.types import Completion, Finish, Prompt, RolloutGroup, Score, ScoredGroup

REWARDS = [1.0, 0.0, 0.4, 0.9]
LENGTHS = [10, 20, 95, 96]


def test_grpo_by_hand():
    # mean 0.575; squares .180625 + .330625 + .030625 + .105625 = .6475, over 4 and rooted .402337
    want = np.array([0.425, -0.575, -0.175, 0.325]) / (0.161875**0.5 + 1e-6)
    np.testing.assert_allclose(grpo_advantages(REWARDS), want, atol=1e-12)


def test_dr_grpo_by_hand():
    np.testing.assert_allclose(dr_grpo_advantages(REWARDS), [0.425, -0.575, -0.175, 0.325], atol=1e-12)


def test_dapo_takes_the_penalty_off_before_comparing():
    got = dapo_advantages(REWARDS, LENGTHS, max_tokens=96, overlong_buffer=4, overlong_penalty=0.8)
    np.testing.assert_allclose(got, grpo_advantages([1.0, 0.0, 0.4 - 0.6, 0.9 - 0.8]), atol=1e-12)


def test_overlong_penalty_line():
    lengths_G = np.array([0, 59, 60, 70, 80, 99, 100, 500])
    got = overlong_penalties(lengths_G, max_tokens=100, overlong_buffer=40, overlong_penalty=2.0)
    np.testing.assert_allclose(got, [0, 0, 0, 0.5, 1.0, 1.95, 2.0, 2.0], atol=1e-12)
    wider = overlong_penalties(lengths_G, max_tokens=100, overlong_buffer=512, overlong_penalty=1.0)
    np.testing.assert_allclose(wider, np.minimum(lengths_G / 100, 1), atol=1e-12)


@pytest.mark.parametrize("function", [grpo_advantages, dr_grpo_advantages])
@pytest.mark.parametrize("rewards_G", [[], [1.0], [0.1, 0.1, 0.1]])
def test_nothing_to_compare_gives_exact_zeros(function, rewards_G):
    assert function(rewards_G).tolist() == [0.0] * len(rewards_G)


def test_dynamic_sampling_looks_at_the_rewards_alone():
    assert not is_informative([1, 1]) and not is_informative([0.0]) and not is_informative([])
    assert is_informative([1, 0.99])
    shaped = dapo_advantages([1, 1], [10, 96], max_tokens=96, overlong_buffer=8, overlong_penalty=1.0)
    assert shaped.any()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=16), st.floats(-3, 3))
@settings(max_examples=100)
def test_group_relative_advantages_sum_to_zero_and_ignore_a_shift(rewards_G, shift):
    for function in (grpo_advantages, dr_grpo_advantages):
        advantages_G = function(rewards_G)
        assert abs(advantages_G.sum()) < 1e-6
    np.testing.assert_allclose(
        dr_grpo_advantages(np.array(rewards_G) + shift), dr_grpo_advantages(rewards_G), atol=1e-9
    )
    assert np.abs(grpo_advantages(rewards_G)).max() <= (len(rewards_G) - 1) ** 0.5 + 1e-6


@pytest.mark.parametrize("bad", [[[1.0, 0.0]], [1.0, float("nan")], [float("inf"), 0.0]])
def test_bad_rewards_are_refused(bad):
    for function in (grpo_advantages, dr_grpo_advantages, is_informative):
        with pytest.raises(DataError):
            function(bad)


def scored(*rewards_G, failure=""):
    answer = Completion(np.zeros(2, np.int32), np.zeros(2, np.float32), "", Finish.STOP, 0, 0)
    scores = [Score(reward, failure=failure if index == 0 else "") for index, reward in enumerate(rewards_G)]
    return ScoredGroup(RolloutGroup(Prompt("a", "math", "?", "1", (1,)), (answer,) * len(scores)), tuple(scores))


def test_dynamic_sampling_does_not_hide_a_broken_scorer():
    accept = DynamicSampling(num_prompts_per_step=1, max_replaced_share=1.0)
    assert accept(scored(0.0, 1.0, 1.0, failure="timed out"))


def test_dynamic_sampling_turns_away_groups_without_signal_and_counts_by_step():
    accept = DynamicSampling(num_prompts_per_step=2, max_replaced_share=1.0)
    flat, mixed = scored(1.0, 1.0), scored(1.0, 0.0)
    for _ in range(3):  # each step may replace two
        assert [accept(group) for group in (flat, mixed, flat, mixed)] == [False, True, False, True]
    assert not accept(flat)
    assert not accept(flat)
    with pytest.raises(RolloutError, match="3 groups without signal in one step of 2"):
        accept(flat)


def test_only_dapo_turns_groups_away():
    flat = scored(1.0, 1.0)
    assert build_accept(AlgorithmSettings(name="lipo"), 4)(flat)
    assert build_accept(AlgorithmSettings(name="dapo", dapo=DapoConfig(dynamic_sampling=False)), 4)(flat)
    assert not build_accept(AlgorithmSettings(name="dapo"), 4)(flat)
