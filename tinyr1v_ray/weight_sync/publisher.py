"""The one edge that goes back: new weights, from the learner to every engine, verified."""

from __future__ import annotations

import asyncio

import numpy as np

from tinyr1v_ray.learner.rank import LearnerRank
from tinyr1v_ray.types import Prompt
from tinyr1v_ray.weight_sync.agreement import check_agreement
from tinyr1v_ray.weight_sync.transport import Edge
from tinyr1v_ray.weight_sync.transports import TRANSPORTS

DEFAULT_CANARY_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25}
"""Nat. Float32 agrees to 1e-4; in bfloat16 two implementations round differently at every layer."""


class VerifiedPublisher:
    """Port `WeightPublisher`: the transport of `weights.backend`, and after each transfer the canary.

    `canary` is a prompt and the tokens whose log-probs engine and learner must agree on; it has an image where the data
    has images, so that the vision tower is checked too.
    """

    def __init__(self, edge: Edge, canary: tuple[Prompt, np.ndarray]) -> None:
        self._edge, self._canary = edge, canary
        self._transport = TRANSPORTS[edge.settings.backend](edge)
        self._tolerance = edge.settings.canary_tolerance or DEFAULT_CANARY_TOLERANCE[edge.dtype]

    async def connect(self) -> None:
        """Once, before the first version."""
        await self._transport.connect()

    async def publish(self, version: int) -> None:
        """Transfer, then compare; raises WeightSyncError with what differs."""
        await self._transport.send(version)
        (prompt, token_ids_T), timeout_s = self._canary, self._edge.settings.timeout_s
        expected_T, seen = await asyncio.gather(
            self._edge.learner.everywhere(LearnerRank.token_logprobs, timeout_s, prompt, token_ids_T),
            self._edge.engines.score(prompt, token_ids_T, timeout_s),
        )
        check_agreement(version, expected_T, seen, self._tolerance)

    def close(self) -> None:
        """Remove what the transport left behind."""
        self._transport.close()
