"""Stops a run whose answers cannot be scored: one lost answer is data, many of them are a broken scorer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyr1v_ray.errors import RewardError
from tinyr1v_ray.types import ScoredGroup, StepMetrics


class UnscoredGuard:
    """A sink that raises RewardError after a step in which more than `max_unscored_share` of answers went unscored.

    Put it last, so that the step that ends the run is on record.
    """

    def __init__(self, max_unscored_share: float) -> None:
        self._max_share = max_unscored_share

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """Check a finished step."""
        scores = [(group.group.prompt.prompt_id, score) for group in groups for score in group.scores]
        failed = [(prompt_id, score.failure) for prompt_id, score in scores if not score.is_scored]
        if len(failed) > self._max_share * len(scores):
            prompt_id, failure = failed[0]
            raise RewardError(
                f"{len(failed)} of {len(scores)} answers of step {metrics.step} could not be scored (first: "
                f"{prompt_id}, {failure}); reward.max_unscored_share allows {self._max_share:.1%}; "
                "mend the scoring function or raise reward.item_timeout_s"
            )

    def close(self) -> None:
        """Nothing is held open."""
