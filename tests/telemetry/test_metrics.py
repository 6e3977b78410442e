"""A step's metrics, worked out by hand."""

import math

import numpy as np
import pytest

from tinyr1v_ray.telemetry.metrics import step_metrics
from tinyr1v_ray.types import Finish, LearnerUpdate, Score, StepAdvantages


def same_advantages(advantages_PG):
    """Advantages that do not depend on length."""
    return StepAdvantages(tuple(advantages_PG), tuple(advantages_PG))


def test_metrics_by_hand(make):
    first = make.group(
        "a",
        [make.completion(10, version=3), make.completion(30, finish=Finish.LENGTH, version=2)],
        [Score(1.0, {"answer": 1.0, "format": 1.0}, True), Score(0.2, {"answer": 0.0, "format": 1.0})],
    )
    second = make.group(
        "b",
        [make.completion(20, version=3), make.completion(5, finish=Finish.ABORT, version=3)],
        [Score(0.0, failure="timed out"), Score(1.0, {"answer": 1.0}, True)],
    )
    advantages = StepAdvantages(
        (np.array([-1.0, 1.5]), np.zeros(2)), (np.array([-0.25, 1.0]), np.zeros(2)), {"beta": 0.25}
    )
    seconds = {"generate": 2.0, "learn": 1.0, "step": 4.0}
    row = step_metrics(5, LearnerUpdate(5, {"kl": 0.25}), [first, second], advantages, 3, seconds).as_row()
    assert row == {
        "step": 5,
        "version": 5,
        "reward_mean": pytest.approx(0.6),
        "reward_part_answer": 0.5,
        "reward_part_format": 1.0,
        "accuracy": 0.5,
        "length_mean": 20.0,
        "truncated_share": 0.25,
        "no_signal_share": 0.5,
        "right_negative_share": 1.0,
        "wrong_positive_share": 1.0,
        "advantage_sum": 2.5,
        "advantage_sum_by_length": 1.25,
        "pass_rate_0": 0.0,
        "pass_rate_0_25": 0.0,
        "pass_rate_25_50": 1.0,  # the second group has no usable completion
        "pass_rate_50_75": 0.0,
        "pass_rate_75_100": 0.0,
        "pass_rate_100": 0.0,
        "beta": 0.25,
        "equal_reward_share": 0.5,
        "num_rejected_groups": 3,
        "num_completions": 4,
        "num_aborted": 1,
        "num_unscored": 1,
        "staleness_max": 2,
        "tokens_per_second": 65 / 4.0,
        "kl": 0.25,
        "seconds_generate": 2.0,
        "seconds_learn": 1.0,
        "seconds_step": 4.0,
    }


def test_on_policy_is_staleness_zero(make):
    groups, advantages_PG, update = make.step(7)
    assert (
        step_metrics(7, update, groups, same_advantages(advantages_PG), 0, {"step": 1.0}).values["staleness_max"] == 0
    )


def test_nothing_usable_is_nan_and_not_zero(make):
    group = make.group("a", [make.completion(0), make.completion(0)], [Score(0.0), Score(0.0)])
    values = step_metrics(1, LearnerUpdate(1, {}), [group], same_advantages([np.zeros(2)]), 0, {"step": 0.0}).values
    nothing = ("reward_mean", "accuracy", "length_mean", "tokens_per_second", "right_negative_share", "pass_rate_0")
    assert all(math.isnan(values[name]) for name in nothing)
    assert values["num_completions"] == 2 and values["no_signal_share"] == 1.0


def test_a_learner_metric_cannot_hide_one_of_the_steps(make):
    groups, advantages_PG, _ = make.step(1)
    with pytest.raises(ValueError, match="accuracy"):
        step_metrics(1, LearnerUpdate(1, {"accuracy": 1.0}), groups, same_advantages(advantages_PG), 0, {"step": 1.0})


def test_right_and_wrong_are_told_by_the_verdict_and_counted_over_the_step(make):
    """Five right answers, one of them with a negative advantage; three wrong ones, one with a positive one."""
    right, wrong = Score(1.0, {}, True), Score(0.9, {})
    scores = [[right, right, right, wrong], [right, right, wrong, wrong]]
    groups = [make.group(str(number), [make.completion(5)] * 4, row) for number, row in enumerate(scores)]
    advantages_PG = [np.array([0.5, 0.5, -0.1, -0.9]), np.array([1.0, 0.0, 0.2, -1.2])]
    values = step_metrics(1, LearnerUpdate(1, {}), groups, same_advantages(advantages_PG), 0, {"step": 1.0}).values
    assert values["right_negative_share"] == 0.2 and values["wrong_positive_share"] == pytest.approx(1 / 3)
    assert values["advantage_sum"] == pytest.approx(4.4) and values["advantage_sum_by_length"] == 0.0


def test_the_histogram_of_pass_rates(make):
    """Groups of eight with 0 to 8 right: an upper end belongs to its bin; none and all have bins of their own."""
    groups = [
        make.group(str(k), [make.completion(5)] * 8, [Score(1.0, {}, True)] * k + [Score(0.0)] * (8 - k))
        for k in range(9)
    ]
    values = step_metrics(1, LearnerUpdate(1, {}), groups, same_advantages([np.zeros(8)] * 9), 0, {"step": 1.0}).values
    names = ("0", "0_25", "25_50", "50_75", "75_100", "100")
    assert [round(values[f"pass_rate_{name}"] * 9) for name in names] == [1, 2, 2, 2, 1, 1]
