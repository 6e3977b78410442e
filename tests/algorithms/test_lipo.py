"""LIPO against golden numbers, against a slow computation written from the formulas, and against its own promises."""

import itertools
import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyr1v_ray.algorithms.baselines import grpo_advantages
from tinyr1v_ray.algorithms.lipo import LipoConfig, adjusted_rewards, lipo_advantages
from tinyr1v_ray.config.algorithm import LipoConfig as SchemaLipoConfig
from tinyr1v_ray.errors import DataError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lipo.json").read_text())
IDS = [f"{number}-G{len(case['rewards'])}" for number, case in enumerate(GOLDEN["cases"])]

rewards = st.sampled_from([0.0, 0.05, 0.1, 0.45, 0.5, 0.55, 0.9, 0.95, 1.0]) | st.floats(0, 1)
lengths = st.integers(0, 12) | st.integers(1, 2000)
groups = st.lists(st.tuples(rewards, lengths), min_size=0, max_size=12)
configs = st.builds(
    LipoConfig,
    pairs=st.sampled_from(["adjacent", "all"]),
    reward_gap=st.sampled_from([0.0, 0.05, 0.1, 2.0]),
    min_quality=st.sampled_from([0.0, 0.5, 1.0]),
    boost=st.sampled_from([0.0, 0.2, 1.0]),
    decay=st.sampled_from(["cosine", "linear", "exponential"]),
    length_bound=st.sampled_from([1.0, 96.0, 512.0]),
    length_scale=st.sampled_from([0.25, 1.0, 8.0]),
    advantage_mode=st.sampled_from(["both", "statistics", "multiply"]),
    std_floor=st.sampled_from([0.0, 0.1]),
)


def split(group):
    return [reward for reward, _ in group], [length for _, length in group]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=IDS)
def test_golden_numbers(case):
    config = LipoConfig(**case["config"])
    arguments = np.array(case["rewards"]), np.array(case["lengths"]), config
    np.testing.assert_allclose(adjusted_rewards(*arguments), case["adjusted"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(lipo_advantages(*arguments), case["advantages"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(grpo_advantages(case["rewards"]), case["grpo"], rtol=0, atol=1e-9)


def test_defaults_are_the_golden_files():
    assert LipoConfig().model_dump() == GOLDEN["defaults"]
    assert LipoConfig is SchemaLipoConfig


def slow_adjusted(rewards_G, lengths_G, config):
    order = sorted(range(len(rewards_G)), key=lambda i: (lengths_G[i], i))
    everyone = [(i, j) for i in range(len(order)) for j in range(len(order))]
    pairs = everyone if config.pairs == "all" else list(itertools.pairwise(order))
    result = list(rewards_G)
    for i in {
        i
        for i, j in pairs
        if lengths_G[i] < lengths_G[j] and abs(rewards_G[i] - rewards_G[j]) < config.reward_gap
        if rewards_G[i] >= config.min_quality
    }:
        share = min(lengths_G[i] / config.length_bound, 1)
        phi = {
            "cosine": (1 + math.cos(math.pi * share)) / 2,
            "linear": 1 - share,
            "exponential": math.exp(-lengths_G[i] / config.length_bound),
        }[config.decay]
        result[i] = rewards_G[i] * (1 + config.boost * phi)
    return result


def slow_advantages(rewards_G, lengths_G, config):
    adjusted = slow_adjusted(rewards_G, lengths_G, config)
    if len(set(adjusted)) < 2:
        return [0.0] * len(adjusted)
    optimal = max(2 * min(lengths_G), statistics.median(lengths_G))
    weights = [math.exp(-abs(n - optimal) / (config.length_scale * optimal)) if optimal else 1.0 for n in lengths_G]
    inside = [1.0] * len(weights) if config.advantage_mode == "multiply" else weights
    outside = [1.0] * len(weights) if config.advantage_mode == "statistics" else weights
    mean = math.fsum(w * r for w, r in zip(inside, adjusted, strict=True)) / math.fsum(inside)
    variance = math.fsum(w * (r - mean) ** 2 for w, r in zip(inside, adjusted, strict=True)) / math.fsum(inside)
    scale = max(math.sqrt(variance), config.std_floor) + 1e-6
    return [w * (r - mean) / scale for w, r in zip(outside, adjusted, strict=True)]


@given(groups, configs)
@settings(max_examples=300)
def test_equals_a_slow_computation(group, config):
    rewards_G, lengths_G = split(group)
    np.testing.assert_allclose(
        adjusted_rewards(rewards_G, lengths_G, config), slow_adjusted(rewards_G, lengths_G, config), atol=1e-12
    )
    got, want = lipo_advantages(rewards_G, lengths_G, config), slow_advantages(rewards_G, lengths_G, config)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


@given(groups, configs)
@settings(max_examples=150)
def test_bounds(group, config):
    rewards_G, lengths_G = map(np.array, split(group))
    adjusted_G = adjusted_rewards(rewards_G, lengths_G, config)
    assert adjusted_G.dtype == np.float64 and adjusted_G.shape == rewards_G.shape
    assert (adjusted_G >= rewards_G).all()
    assert (adjusted_G <= rewards_G * (1 + config.boost) + 1e-12).all()
    assert (adjusted_G[rewards_G < config.min_quality] == rewards_G[rewards_G < config.min_quality]).all()
    advantages_G = lipo_advantages(rewards_G, lengths_G, config)
    assert advantages_G.shape == rewards_G.shape and np.isfinite(advantages_G).all()
    if config.advantage_mode == "both":  # the weighted mean is taken off, so the weighted sum is nothing
        assert abs(advantages_G.sum()) < 1e-6


@given(groups, configs, st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_order_of_completions_matters_only_among_equal_lengths(group, config, random):
    if config.pairs == "adjacent":
        group = list({length: (reward, length) for reward, length in group}.values())
    order = list(range(len(group)))
    random.shuffle(order)
    rewards_G, lengths_G = map(np.array, split(group))
    np.testing.assert_allclose(
        lipo_advantages(rewards_G[order], lengths_G[order], config) if group else np.zeros(0),
        lipo_advantages(rewards_G, lengths_G, config)[order],
        rtol=1e-6,
        atol=1e-9,
    )


@given(groups, configs)
@settings(max_examples=100)
def test_the_unit_of_length_does_not_matter(group, config):
    rewards_G, lengths_G = map(np.array, split(group))
    finer = config.model_copy(update={"length_bound": 4 * config.length_bound})
    np.testing.assert_allclose(
        lipo_advantages(rewards_G, 4 * lengths_G, finer), lipo_advantages(rewards_G, lengths_G, config), atol=1e-9
    )


@given(st.lists(rewards, min_size=2, max_size=12), st.integers(1, 999), configs)
@settings(max_examples=100)
def test_equal_lengths_and_no_floor_is_grpo_up_to_the_common_weight(rewards_G, length, config):
    config = config.model_copy(update={"std_floor": 0.0})
    weight = 1.0 if config.advantage_mode == "statistics" else math.exp(-0.5 / config.length_scale)
    got = lipo_advantages(rewards_G, [length] * len(rewards_G), config)
    np.testing.assert_allclose(got, weight * grpo_advantages(rewards_G), atol=1e-6)


@given(st.lists(st.tuples(rewards, st.integers(1, 999)), min_size=2, max_size=12))
@settings(max_examples=100)
def test_without_boost_floor_and_weights_it_is_grpo(group):
    rewards_G, lengths_G = split(group)
    for mode in ("both", "statistics", "multiply"):
        config = LipoConfig(boost=0, std_floor=0, length_scale=1e12, advantage_mode=mode)
        np.testing.assert_allclose(
            lipo_advantages(rewards_G, lengths_G, config), grpo_advantages(rewards_G), rtol=1e-5, atol=1e-5
        )


def test_an_equally_long_completion_stands_between_neighbours():
    config = LipoConfig(decay="linear", length_bound=10, boost=1.0)
    assert adjusted_rewards([1, 1, 1], [2, 2, 5], config).tolist() == [1.0, 1.8, 1.0]
    assert adjusted_rewards([1, 0, 1], [2, 2, 5], config).tolist() == [1.0, 0.0, 1.0]
    every = config.model_copy(update={"pairs": "all"})
    assert adjusted_rewards([1, 1, 1], [2, 2, 5], every).tolist() == [1.8, 1.8, 1.0]
    assert adjusted_rewards([1, 0, 1], [2, 2, 5], every).tolist() == [1.8, 0.0, 1.0]


def test_all_pairs_boost_a_completion_once():
    config = LipoConfig(pairs="all", decay="linear", length_bound=10, boost=0.5)
    assert adjusted_rewards([1, 1, 1, 1], [2, 4, 6, 8], config).tolist() == pytest.approx([1.4, 1.3, 1.2, 1.0])


def test_the_reward_gap_is_strict():
    config = LipoConfig(decay="linear", length_bound=10, reward_gap=0.25)
    assert adjusted_rewards([0.75, 1.0], [5, 6], config).tolist() == [0.75, 1.0]
    assert adjusted_rewards([0.7500001, 1.0], [5, 6], config)[0] > 0.75001
    assert adjusted_rewards([1.0, 1.0], [5, 6], config.model_copy(update={"reward_gap": 0.0})).tolist() == [1.0, 1.0]


def test_min_quality_is_inclusive_and_zero_switches_it_off():
    assert adjusted_rewards([0.5, 0.5], [5, 6])[0] > 0.5
    assert adjusted_rewards([0.4, 0.4], [5, 6])[0] == 0.4
    assert adjusted_rewards([0.4, 0.4], [5, 6], LipoConfig(min_quality=0))[0] > 0.4


def test_no_boost_at_the_length_bound_and_beyond():
    for decay in ("cosine", "linear"):
        got = adjusted_rewards([1, 1, 1], [512, 600, 700], LipoConfig(decay=decay))
        assert got.tolist() == [1.0, 1.0, 1.0]
        assert not lipo_advantages([1, 1, 1], [512, 600, 700], LipoConfig(decay=decay)).any()
    assert adjusted_rewards([1, 1], [512, 600], LipoConfig(decay="exponential"))[0] == 1 + 0.2 * math.exp(-1)


def test_equal_wrong_answers_teach_nothing_whatever_their_lengths():
    for config in (LipoConfig(), LipoConfig(std_floor=0), LipoConfig(pairs="all", advantage_mode="multiply")):
        assert lipo_advantages([0.1] * 4, [3, 9, 30, 90], config).tolist() == [0.0] * 4
    assert lipo_advantages([0.0] * 3, [1, 2, 3], LipoConfig(min_quality=0)).tolist() == [0.0] * 3


@pytest.mark.parametrize("rewards_G, lengths_G", [([], []), ([1.0], [7]), ([0.0], [0])])
def test_fewer_than_two_completions_teach_nothing(rewards_G, lengths_G):
    assert lipo_advantages(rewards_G, lengths_G).tolist() == [0.0] * len(rewards_G)


def test_empty_completions():
    alone = lipo_advantages([1, 0], [0, 0])
    assert alone.tolist() == pytest.approx([0.5 / 0.500001, -0.5 / 0.500001])
    mostly = lipo_advantages([0, 0, 0, 1], [0, 0, 0, 40])  # L_opt is 0: all weights are 1, the answer still counts
    np.testing.assert_allclose(mostly, grpo_advantages([0, 0, 0, 1]), atol=1e-9)
    some = lipo_advantages([0, 1, 1], [0, 10, 20])  # L_opt is 10
    assert np.isfinite(some).all() and some[0] < 0 < some[2] < some[1]


def test_weights_below_the_smallest_float_leave_the_statistics_alone():
    config = LipoConfig(length_scale=1e-6, advantage_mode="statistics", boost=0, std_floor=0)
    got = lipo_advantages([1, 0, 1], [10, 10, 11], config)  # L_opt is 20, so 11 outweighs 10 by exp(1e6 / 20)
    assert np.isfinite(got).all() and got[2] == 0.0 and got[1] == pytest.approx(-1e6, rel=1e-6)
    both = lipo_advantages([1, 0, 1], [10, 10, 11], config.model_copy(update={"advantage_mode": "both"}))
    assert both.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("advantage_mode", ["both", "statistics", "multiply"])
def test_a_longer_right_answer_beats_a_shorter_wrong_one(advantage_mode):
    got = lipo_advantages([1, 1, 0, 0], [200, 300, 20, 10], LipoConfig(advantage_mode=advantage_mode))
    assert got[:2].min() > 0 > got[2:].max()


def test_the_floor_holds_a_slight_difference_of_length_down():
    group, config = ([1, 1, 1, 1], [100, 120, 140, 160]), LipoConfig(boost=0.02, advantage_mode="statistics")
    assert np.abs(lipo_advantages(*group, config)).max() < 0.2
    assert np.abs(lipo_advantages(*group, config.model_copy(update={"std_floor": 0.0}))).max() > 1.5


@pytest.mark.parametrize(
    "rewards_G, lengths_G, says",
    [
        ([1, 0], [3], "one length per reward"),
        ([[1, 0]], [[3, 4]], "a group is a vector"),
        ([1, math.nan], [3, 4], "a reward is a finite number"),
        ([1, math.inf], [3, 4], "a reward is a finite number"),
        ([1, 0], [3, -1], "a length is a finite number"),
        ([1, 0], [3, math.nan], "a length is a finite number"),
    ],
)
@pytest.mark.parametrize("function", [adjusted_rewards, lipo_advantages])
def test_bad_input_is_refused(function, rewards_G, lengths_G, says):
    with pytest.raises(DataError, match=says) as caught:
        function(rewards_G, lengths_G)
    assert isinstance(caught.value, ValueError) and len(str(caught.value).split("; ")) == 3


def test_ties_keep_their_order_in_a_large_group():
    generator = np.random.default_rng(3)
    rewards_G, lengths_G = generator.integers(0, 2, 300).astype(float), generator.integers(1, 20, 300)
    want = slow_adjusted(rewards_G.tolist(), lengths_G.tolist(), LipoConfig())
    np.testing.assert_allclose(adjusted_rewards(rewards_G, lengths_G), want, atol=1e-12)
