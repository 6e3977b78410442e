"""Port `Devices`: engines and learner on devices of their own, or on the same ones by turns.

On shared GPUs a step goes: generate, engines sleep, learn, the learner frees its cache, engines wake for the weights,
transfer, engines wake for the KV cache, generate. The wakes are the engines' own part of loading weights. On the CPU
all of it runs for real, but no memory changes hands; on GPUs it was never run.
"""

from __future__ import annotations

from tinyr1v_ray.cluster.learner_group import LearnerGroup
from tinyr1v_ray.cluster.rollout_pool import RolloutPool
from tinyr1v_ray.learner.rank import LearnerRank
from tinyr1v_ray.telemetry.timing import PhaseClock


class OwnDevices:
    """Nobody waits for anybody."""

    async def to_learner(self) -> None:
        """Nothing to do."""

    async def to_engines(self) -> None:
        """Nothing to do."""


class SharedDevices:
    """Each learner rank and its engine take turns; what that takes is the phase `switch` of the clock."""

    def __init__(self, engines: RolloutPool, learner: LearnerGroup, timeout_s: float, clock: PhaseClock) -> None:
        self._engines, self._learner, self._timeout_s, self._clock = engines, learner, timeout_s, clock

    async def to_learner(self) -> None:
        """All engines sleep."""
        with self._clock("switch"):
            await self._engines.sleep(self._timeout_s)

    async def to_engines(self) -> None:
        """The learner frees its cache."""
        with self._clock("switch"):
            await self._learner.everywhere(LearnerRank.free_memory, self._timeout_s)
