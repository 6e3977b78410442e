"""What a publisher does with a version: transfer, then compare. Transport, learner and engines are stand-ins."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest

from tinyr1v_ray.cluster.publishing import VerifiedPublisher
from tinyr1v_ray.errors import WeightSyncError
from tinyr1v_ray.types import Prompt

CANARY = Prompt("canary", "math", "?", "1", (5,)), np.array([7, 8], np.int32)
LOGPROBS = np.array([-1.0, -2.0], np.float32)


class Machines:
    """A learner and two engines, the second of which is `gap` off at one token, and a record of the calls."""

    def __init__(self, gap: float) -> None:
        self.gap = gap
        self.calls: list[Any] = []

    async def send(self, version: int) -> None:
        await asyncio.sleep(0)
        self.calls.append(version)

    async def token_logprobs(self, prompt: Prompt, token_ids_T: np.ndarray) -> np.ndarray:
        self.calls.append((prompt, token_ids_T))
        return LOGPROBS

    async def score(self, prompt: Prompt, token_ids_T: np.ndarray) -> dict[str, np.ndarray]:
        self.calls.append((prompt, token_ids_T))
        return {"rollout-0": LOGPROBS, "rollout-1": LOGPROBS + np.array([0.0, self.gap], np.float32)}


def publish(machines: Machines, version: int) -> None:
    everything = cast(Any, machines)
    asyncio.run(VerifiedPublisher(everything, everything, everything, CANARY, tolerance=1e-3).publish(version))


@pytest.mark.parametrize("gap", [0.0, 5e-4])
def test_every_engine_is_compared_with_the_learner_after_the_transfer(gap: float) -> None:
    machines = Machines(gap)
    publish(machines, 3)
    assert machines.calls == [3, CANARY, CANARY]


@pytest.mark.parametrize("gap", [2e-3, -2e-3, np.nan])
def test_an_engine_that_differs_ends_the_publication(gap: float) -> None:
    machines = Machines(gap)
    with pytest.raises(WeightSyncError, match=r"version 3: rollout-1 gives log-prob .* to token 1"):
        publish(machines, 3)
    assert machines.calls == [3, CANARY, CANARY]
