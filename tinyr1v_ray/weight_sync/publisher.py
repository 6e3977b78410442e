"""The one edge that goes back: new weights, from the learner to every engine, verified."""

from __future__ import annotations

import logging

from tinyr1v_ray.types import Prompt
from tinyr1v_ray.weight_sync.canary import Canary
from tinyr1v_ray.weight_sync.transport import Edge
from tinyr1v_ray.weight_sync.transports import TRANSPORTS

logger = logging.getLogger(__name__)


class VerifiedPublisher:
    """Port `WeightPublisher`: the transport of `weights.backend`, and after each transfer the canary."""

    def __init__(self, edge: Edge, prompt: Prompt, max_tokens: int) -> None:
        self._edge = edge
        self._transport = TRANSPORTS[edge.settings.backend](edge)
        self._canary = Canary(edge, prompt, max_tokens)

    async def connect(self) -> None:
        """Once, before the first version."""
        await self._transport.connect()

    async def publish(self, version: int) -> None:
        """Transfer, then compare. Engines that differ get the weights once more; if that does not help, replace them.

        Raises WeightSyncError when a replacement differs too, for then the fault is not the engine's.
        """
        await self._transport.send(version)
        found = await self._canary.differing(version)
        if found:
            logger.warning("the version is sent again: %s", " | ".join(map(str, found.values())))
            await self._transport.send(version)
            found = await self._canary.differing(version)
        if found:
            for engine, error in found.items():
                self._edge.engines.replace(engine, error)
            found = await self._canary.differing(version)
        for error in found.values():
            raise error

    def close(self) -> None:
        """Remove what the transport left behind."""
        self._transport.close()
