"""Quality first: against a slow computation, by its promises on random groups, and its controller by hand."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyr1v_ray.algorithms.advantages import build_advantages
from tinyr1v_ray.algorithms.baselines import grpo_advantages
from tinyr1v_ray.algorithms.group import length_term
from tinyr1v_ray.algorithms.lipo import LipoConfig, lipo_advantages
from tinyr1v_ray.algorithms.quality_first import Control, quality_first_advantages
from tinyr1v_ray.config.algorithm import AlgorithmSettings, QualityFirstConfig
from tinyr1v_ray.errors import DataError

rewards = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]) | st.floats(0, 1)
answers = st.lists(st.tuples(rewards, st.integers(1, 2000)), min_size=0, max_size=12)
betas = st.floats(0, 5)
pass_rates = st.lists(st.floats(0, 1), min_size=1, max_size=60)


def split(group):
    return [reward for reward, _ in group], [length for _, length in group]


def good_ones(rewards_G, min_quality=0.5):
    return (np.array(rewards_G) >= min_quality) & (grpo_advantages(rewards_G) >= 0)


def slow(rewards_G, lengths_G, beta, min_quality):
    """Written from the definition, one answer at a time."""
    size = len(rewards_G)
    mean, deviation = statistics.fmean(rewards_G), statistics.pstdev(rewards_G)
    quality = [(reward - mean) / (deviation + 1e-6) if len(set(rewards_G)) > 1 else 0.0 for reward in rewards_G]
    good = [i for i in range(size) if rewards_G[i] >= min_quality and quality[i] >= 0]
    scores = {}
    if len({lengths_G[i] for i in good}) > 1:
        middle, spread = (f([lengths_G[i] for i in good]) for f in (statistics.fmean, statistics.pstdev))
        scores = {i: 1 / (1 + math.exp(-(lengths_G[i] - middle) / spread)) for i in good}
    result = []
    for i in range(size):
        term = statistics.fmean(scores.values()) - scores[i] if i in scores else 0.0
        total = quality[i] + beta * len(good) / size * term
        result.append(0.0 if quality[i] * total < 0 else total)
    return result


@given(answers.filter(bool), betas, st.sampled_from([0.0, 0.5, 0.9]))
@settings(max_examples=200)
def test_it_is_its_definition(group, beta, min_quality):
    rewards_G, lengths_G = split(group)
    got = quality_first_advantages(rewards_G, lengths_G, beta, min_quality)
    np.testing.assert_allclose(got, slow(rewards_G, lengths_G, beta, min_quality), atol=1e-6)


def test_by_hand():
    """Three right of four, lengths 10, 20, 30: z = -1.2247, 0, 1.2247; s = 0.2271, 0.5, 0.7729; rho = 3/4."""
    s = 1 / (1 + math.exp(1.5**0.5))
    a = 0.25 / (0.1875**0.5 + 1e-6)
    got = quality_first_advantages([1, 1, 1, 0], [10, 20, 30, 5], beta=0.4)
    np.testing.assert_allclose(got, [a + 0.3 * (0.5 - s), a, a - 0.3 * (0.5 - s), -3 * a], atol=1e-12)
    clipped = quality_first_advantages([1, 1, 1, 0], [10, 20, 30, 5], beta=8.0)
    np.testing.assert_allclose(clipped, [a + 6 * (0.5 - s), a, 0.0, -3 * a], atol=1e-12)


@given(answers)
@settings(max_examples=200)
def test_without_beta_it_is_grpo_bit_for_bit(group):
    rewards_G, lengths_G = split(group)
    got, want = quality_first_advantages(rewards_G, lengths_G, 0.0), grpo_advantages(rewards_G)
    assert got.tobytes() == want.tobytes()


@given(answers, betas)
@settings(max_examples=200)
def test_no_sign_changes_and_only_good_answers_are_touched(group, beta):
    rewards_G, lengths_G = split(group)
    got, quality_G = quality_first_advantages(rewards_G, lengths_G, beta), grpo_advantages(rewards_G)
    assert (np.sign(got) * np.sign(quality_G) >= 0).all()
    good_G = good_ones(rewards_G)
    np.testing.assert_array_equal(got[~good_G], quality_G[~good_G])


@given(answers)
@settings(max_examples=200)
def test_the_length_term_sums_to_zero_and_is_bounded(group):
    rewards_G, lengths_G = split(group)
    term_G = length_term(np.array(lengths_G, np.float64), good_ones(rewards_G))
    assert abs(term_G.sum()) < 1e-12 and (np.abs(term_G) < 1).all()


@given(answers.filter(bool), betas, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_the_order_of_the_answers_does_not_matter(group, beta, random):
    order = list(range(len(group)))
    random.shuffle(order)
    got = quality_first_advantages(*split([group[index] for index in order]), beta)
    np.testing.assert_allclose(got, quality_first_advantages(*split(group), beta)[order], atol=1e-6)


@given(answers, betas)
@settings(max_examples=200)
def test_of_two_equally_good_answers_the_shorter_one_is_not_behind(group, beta):
    rewards_G, lengths_G = split(group)
    got, good_G = quality_first_advantages(rewards_G, lengths_G, beta), good_ones(rewards_G)
    for i in range(len(group)):
        for j in range(len(group)):
            if good_G[i] and good_G[j] and rewards_G[i] == rewards_G[j] and lengths_G[i] < lengths_G[j]:
                assert got[i] >= got[j]


@given(answers, betas)
@settings(max_examples=200)
def test_fewer_than_two_good_answers_or_one_length_are_grpo(group, beta):
    rewards_G, lengths_G = split(group)
    if good_ones(rewards_G).sum() >= 2:
        lengths_G = [7] * len(group)
    got = quality_first_advantages(rewards_G, lengths_G, beta)
    np.testing.assert_array_equal(got, grpo_advantages(rewards_G))


def test_in_a_group_that_is_all_right_length_stands_alone():
    got = quality_first_advantages([1, 1, 1, 1], [30, 10, 20, 40], beta=1.0)
    assert np.argsort(-got).tolist() == [1, 2, 0, 3] and abs(got.sum()) < 1e-12
    assert not quality_first_advantages([0.4, 0.4], [3, 9], beta=1.0).any(), "equally bad answers are not good ones"


def test_length_never_overrules_truth_where_lipo_lets_it():
    """The share of right answers with a negative advantage on random lengths: lognormal, median 36, groups of 8."""
    random = np.random.default_rng(0)
    for pass_rate, expected in ((0.75, 0.11), (0.9, 0.21)):
        negative, total = {"lipo": 0, "quality_first": 0}, 0
        for _ in range(3000):
            correct_G = random.random(8) < pass_rate
            if correct_G.all() or not correct_G.any():
                continue
            lengths_G = np.clip(random.lognormal(np.log(36), 0.5, 8), 1, 96).round()
            config = LipoConfig(boost=0.5, length_bound=96)
            total += correct_G.sum()
            negative["lipo"] += (lipo_advantages(correct_G, lengths_G, config)[correct_G] < 0).sum()
            shaped_G = quality_first_advantages(correct_G, lengths_G, beta=5.0)
            negative["quality_first"] += (shaped_G[correct_G] < 0).sum()
        assert negative["lipo"] / total == pytest.approx(expected, abs=0.01)
        assert negative["quality_first"] == 0


@pytest.mark.parametrize("bad", [[1.0, float("nan")], [1.0]])
def test_bad_numbers_are_refused(bad):
    with pytest.raises(DataError):
        quality_first_advantages(bad, [3, 4], 1.0)


def course(values, **changes):
    """beta by step, for pass rates by step."""
    config = QualityFirstConfig(**changes)
    control, betas_seen = Control(0.0, values[0], values[0], 1), [0.0]
    for value in values[1:]:
        control = control.after(value, config)
        betas_seen.append(control.beta)
    return betas_seen


def test_beta_rises_while_the_pass_rate_holds_and_falls_when_it_does_not():
    """window 2: the mean moves half of the way. 0.6, 0.6, 0.6, then 0.4: means 0.5 and 0.45 against a best of 0.6;
    then 0.8: 0.625, the best so far."""
    got = course([0.6, 0.6, 0.6, 0.4, 0.4, 0.8], window=2, tolerance=0.05, rate=0.1, beta=1.0)
    np.testing.assert_allclose(got, [0, 0.1, 0.2, 0.0, 0.0, 0.1], atol=1e-12)


def test_within_the_tolerance_beta_goes_on_rising():
    got = course([0.6, 0.6, 0.6, 0.52, 0.52], window=2, tolerance=0.1, rate=0.1, beta=0.3)
    np.testing.assert_allclose(got, [0, 0.1, 0.2, 0.3, 0.3], atol=1e-12)


def test_before_the_window_is_full_there_is_no_best_to_fall_behind():
    """One lucky first step is not held against those after it."""
    got = course([1.0, 0.6, 0.6, 0.6, 0.6], window=4, tolerance=0.02, rate=0.1)
    np.testing.assert_allclose(got, [0, 0.1, 0.2, 0.3, 0.1], atol=1e-12)  # the mean is 0.7, then 0.675


@pytest.mark.parametrize(("fall", "holds"), [(0.0, True), (0.01, False)])
def test_the_defaults_tell_a_fall_from_the_draw_of_prompts(fall, holds):
    """16 prompts of 8 answers, most prompts nearly always or hardly ever right. A fall by 0.01 a step from step 30 on
    brings beta down to nothing by step 60; chance alone takes less than a quarter of it."""
    random, betas_at_60 = np.random.default_rng(0), []
    for _ in range(200):
        means = 0.7 - fall * np.maximum(np.arange(60) - 30, 0)
        values = [random.binomial(8, random.beta(mean, 1 - mean, 16)).mean() / 8 for mean in means]
        betas_at_60.append(course(values)[-1])
    assert np.mean(betas_at_60) > 0.75 if holds else np.mean(betas_at_60) < 0.02


@given(pass_rates, st.sampled_from(["pass_rate", "ramp", "fixed"]), st.floats(0, 2), st.floats(0, 0.5))
@settings(max_examples=200)
def test_beta_is_bounded_and_moves_by_its_rate(values, controller, largest, rate):
    config = QualityFirstConfig(controller=controller, beta=largest, rate=rate)
    control = Control(largest if controller == "fixed" else 0.0, values[0], values[0], 1)
    for value in values[1:]:
        following = control.after(value, config)
        step = following.beta - control.beta
        assert 0 <= following.beta <= largest and -2 * rate - 1e-12 <= step <= rate + 1e-12
        assert (step >= 0 if controller == "ramp" else True) and (step == 0 if controller == "fixed" else True)
        control = following
    assert control.num_controlled_steps == len(values)


def test_the_pass_rate_is_the_mean_of_the_groups_and_beta_starts_at_zero(group):
    settings_ = {"name": "quality_first", "quality_first": {"rate": 0.25}}
    step = build_advantages(AlgorithmSettings.model_validate(settings_), 96)
    groups = [group([1, 1, 1, 0], [9, 5, 7, 3]), group([1, 0.9], [9, 5]), group([1], [0])]
    first = step(groups, {})
    assert first.state == {
        "beta": 0.0,
        "pass_rate_mean": 0.625,
        "pass_rate_best": 0.625,
        "num_controlled_steps": 1,
    }
    np.testing.assert_array_equal(first.by_group_PG[0], grpo_advantages([1, 1, 1, 0]))
    second = step(groups, first.state)
    assert second.state["beta"] == 0.25
    want = quality_first_advantages([1, 1, 1, 0], [9, 5, 7, 3], 0.25)
    np.testing.assert_array_equal(second.by_group_PG[0], want)
    nobody = [group([1, 0], [0, 0])]
    assert step(nobody, second.state).state == second.state
    assert step(groups, step(nobody, {}).state).state == first.state


def test_a_fixed_beta_holds_from_the_first_step_and_a_ramp_does_not_look(group):
    fixed = {"name": "quality_first", "quality_first": {"controller": "fixed", "beta": 2.5}}
    step = build_advantages(AlgorithmSettings.model_validate(fixed), 96)
    assert step([group([1, 0], [3, 4])], {}).state["beta"] == 2.5
    falling = [1.0, 0.5, 0.2, 0.0, 0.0]
    np.testing.assert_allclose(course(falling, controller="ramp", rate=0.3, window=1, beta=1.0), [0, 0.3, 0.6, 0.9, 1])
