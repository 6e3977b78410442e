"""A step's figures, worked out by hand."""

import math

import numpy as np
import pytest

from tinyr1v_ray.telemetry.metrics import step_metrics
from tinyr1v_ray.types import Finish, LearnerUpdate, Score


def test_figures_by_hand(make):
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
    advantages_PG = [np.array([1.0, -1.0]), np.zeros(2)]
    seconds = {"generate": 2.0, "learn": 1.0, "step": 4.0}
    row = step_metrics(5, LearnerUpdate(5, {"kl": 0.25}), [first, second], advantages_PG, 3, seconds).as_row()
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
    assert step_metrics(7, update, groups, advantages_PG, 0, {"step": 1.0}).values["staleness_max"] == 0


def test_nothing_usable_is_nan_and_not_zero(make):
    group = make.group("a", [make.completion(0), make.completion(0)], [Score(0.0), Score(0.0)])
    values = step_metrics(1, LearnerUpdate(1, {}), [group], [np.zeros(2)], 0, {"step": 0.0}).values
    assert all(math.isnan(values[name]) for name in ("reward_mean", "accuracy", "length_mean", "tokens_per_second"))
    assert values["num_completions"] == 2 and values["no_signal_share"] == 1.0


def test_a_learner_metric_cannot_hide_one_of_the_steps(make):
    groups, advantages_PG, _ = make.step(1)
    with pytest.raises(ValueError, match="accuracy"):
        step_metrics(1, LearnerUpdate(1, {"accuracy": 1.0}), groups, advantages_PG, 0, {"step": 1.0})
