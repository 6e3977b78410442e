"""The scorers as one: round robin, and replacement of what dies."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from ray.exceptions import RayActorError

from tinyr1v_ray.cluster.handle import Handle, spawn
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.cluster.reservation import Reservation
from tinyr1v_ray.config.reward import RewardSettings
from tinyr1v_ray.errors import DeadlineError
from tinyr1v_ray.rewards.isolation import ScoringProcess
from tinyr1v_ray.types import RolloutGroup, Score, ScoredGroup

_START_S = 60.0
_NUM_TRIES = 3
logger = logging.getLogger(__name__)


class RewardPool:
    """Port `RewardScorer` over one or more scorer actors.

    A scorer kills what hangs by itself; a scorer that dies (its node, say) is replaced and the group scored again. A
    group that takes three scorers down with it comes back unscored.
    """

    def __init__(
        self, specs: Sequence[ActorSpec], settings: RewardSettings, reservation: Reservation | None = None
    ) -> None:
        self._specs, self._settings, self._reservation = tuple(specs), settings, reservation
        self._scorers = [self._start(spec) for spec in specs]
        self._turn = itertools.cycle(range(len(specs)))
        self._num_waiting = [0] * len(specs)

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        """One score per completion, within the item deadlines of all groups that wait for the same scorer."""
        failure = ""
        for _ in range(_NUM_TRIES):
            index = next(self._turn)
            scorer = self._scorers[index]
            self._num_waiting[index] += 1
            num_items = len(group.completions) * self._num_waiting[index]
            timeout_s = _START_S + num_items * 2 * self._settings.item_timeout_s
            try:
                return await scorer.call(ScoringProcess.score_group, timeout_s, group)
            except (RayActorError, DeadlineError) as error:
                failure = f"scorer died: {' '.join(str(error).split())[:200]}"
                self._replace(index, scorer, failure)
            finally:
                self._num_waiting[index] -= 1
        return ScoredGroup(group, tuple(Score(0.0, failure=failure) for _ in group.completions))

    async def peak_memory_mib(self) -> dict[str, float]:
        """Largest resident memory by scorer."""
        return {scorer.name: await scorer.peak_memory_mib(_START_S) for scorer in self._scorers}

    def loads(self) -> dict[str, dict[str, Any]]:
        """What each scorer has in hand, by name."""
        pairs = zip(self._scorers, self._num_waiting, strict=True)
        return {scorer.name: {"num_groups": num} for scorer, num in pairs}

    def kill(self) -> None:
        """End all scorers."""
        for scorer in self._scorers:
            scorer.kill()

    def _replace(self, index: int, scorer: Handle[ScoringProcess], reason: str) -> None:
        if scorer is self._scorers[index]:
            logger.warning("%s is replaced: %s", scorer.name, reason)
            scorer.kill()
            self._scorers[index] = self._start(self._specs[index])

    def _start(self, spec: ActorSpec) -> Handle[ScoringProcess]:
        return spawn(spec, partial(ScoringProcess, self._settings), self._reservation)
