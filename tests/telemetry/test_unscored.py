"""Where the line between a lost answer and a broken scorer lies."""

import pytest

from tinyr1v_ray.errors import RewardError
from tinyr1v_ray.telemetry.unscored import UnscoredGuard
from tinyr1v_ray.types import Score, StepMetrics

STEP = StepMetrics(4, 4, {}, {})


def groups_with(make, num_failed, num_answers=20):
    scores = [Score(0.0, failure="timed out")] * num_failed + [Score(1.0)] * (num_answers - num_failed)
    return [make.group(f"p{index}", [make.completion(3)], [score]) for index, score in enumerate(scores)]


def test_up_to_the_share_is_data_and_above_it_is_an_error(make):
    guard = UnscoredGuard(0.05)
    guard.log(STEP, groups_with(make, 0), [])
    guard.log(STEP, groups_with(make, 1), [])
    with pytest.raises(RewardError, match=r"2 of 20 answers of step 4 .*first: p0, timed out.*allows 5.0%"):
        guard.log(STEP, groups_with(make, 2), [])
    guard.close()


def test_a_share_of_zero_allows_none_and_no_answers_are_no_failure(make):
    UnscoredGuard(0.0).log(STEP, [], [])
    with pytest.raises(RewardError, match="1 of 20"):
        UnscoredGuard(0.0).log(STEP, groups_with(make, 1), [])
