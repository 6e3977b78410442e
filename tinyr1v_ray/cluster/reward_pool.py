"""The scorers as one: round robin, and replacement of what dies."""

from __future__ import annotations

import itertools
import logging

from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from tinyr1v_ray.cluster import spawn
from tinyr1v_ray.cluster.calls import finish
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import DeadlineError
from tinyr1v_ray.types import RolloutGroup, Score, ScoredGroup

_START_S = 60.0
_NUM_TRIES = 3
logger = logging.getLogger(__name__)


class RewardPool:
    """Port `RewardScorer` over one or more scorer actors.

    A scorer kills what hangs by itself; a scorer that dies (its node, say) is replaced and the group scored again. A
    group that takes three scorers down with it comes back unscored.
    """

    def __init__(self, specs: tuple[ActorSpec, ...], config: TrainConfig) -> None:
        self._specs, self._config = specs, config
        self._actors: list[ActorHandle] = [spawn.spawn_scorer(spec, config) for spec in specs]
        self._turn = itertools.cycle(range(len(specs)))
        self._num_waiting = [0] * len(specs)

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        """One score per completion, within the item deadlines of all groups that wait for the same scorer."""
        failure = ""
        for _ in range(_NUM_TRIES):
            index = next(self._turn)
            actor = self._actors[index]
            self._num_waiting[index] += 1
            num_items = len(group.completions) * self._num_waiting[index]
            timeout_s = _START_S + num_items * 2 * self._config.reward.item_timeout_s
            try:
                return await finish(actor.score.remote(group), self._specs[index].name, "score", timeout_s)
            except (RayActorError, DeadlineError) as error:
                failure = f"scorer died: {' '.join(str(error).split())[:200]}"
                self._replace(index, actor, failure)
            finally:
                self._num_waiting[index] -= 1
        return ScoredGroup(group, tuple(Score(0.0, failure=failure) for _ in group.completions))

    async def peak_memory_mib(self) -> dict[str, float]:
        """Largest resident memory by scorer."""
        return {
            spec.name: await finish(actor.peak_memory_mib.remote(), spec.name, "peak_memory_mib", _START_S)
            for spec, actor in zip(self._specs, self._actors, strict=True)
        }

    def kill(self) -> None:
        """End all scorers."""
        for actor in self._actors:
            spawn.kill(actor)

    def _replace(self, index: int, actor: ActorHandle, reason: str) -> None:
        if actor is self._actors[index]:
            logger.warning("%s is replaced: %s", self._specs[index].name, reason)
            spawn.kill(actor)
            self._actors[index] = spawn.spawn_scorer(self._specs[index], self._config)
