"""The one edge that goes back: new weights, from the learner to every engine, verified."""

from __future__ import annotations

import asyncio

import numpy as np

from tinyr1v_ray.cluster.learner_group import LearnerGroup
from tinyr1v_ray.cluster.rollout_pool import RolloutPool
from tinyr1v_ray.cluster.transports import WeightTransport
from tinyr1v_ray.types import Prompt
from tinyr1v_ray.weights.agreement import check_agreement


class VerifiedPublisher:
    """Port `WeightPublisher`: a transport, and after each transfer the canary.

    `canary` is a prompt and the tokens whose log-probs engine and learner must agree on to `tolerance` (nat); it has
    an image where the data has images, so that the vision tower is checked too.
    """

    def __init__(
        self,
        transport: WeightTransport,
        learner: LearnerGroup,
        rollouts: RolloutPool,
        canary: tuple[Prompt, np.ndarray],
        tolerance: float,
    ) -> None:
        self._transport, self._learner, self._rollouts = transport, learner, rollouts
        self._canary, self._tolerance = canary, tolerance

    async def connect(self) -> None:
        """Once, before the first version."""
        await self._transport.connect()

    async def publish(self, version: int) -> None:
        """Transfer, then compare; raises WeightSyncError with what differs."""
        await self._transport.send(version)
        prompt, token_ids_T = self._canary
        expected_T, seen = await asyncio.gather(
            self._learner.token_logprobs(prompt, token_ids_T), self._rollouts.score(prompt, token_ids_T)
        )
        check_agreement(version, expected_T, seen, self._tolerance)

    def close(self) -> None:
        """Remove what the transport left behind."""
        self._transport.close()
