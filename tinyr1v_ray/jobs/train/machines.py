"""The actors of one attempt at a run: started side by side, joined, and ended together."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tinyr1v_ray.cluster.calls import first_cause
from tinyr1v_ray.cluster.learner_group import LearnerGroup
from tinyr1v_ray.cluster.placement import plan_placement
from tinyr1v_ray.cluster.publishing import VerifiedPublisher
from tinyr1v_ray.cluster.reward_pool import RewardPool
from tinyr1v_ray.cluster.rollout_pool import RolloutPool
from tinyr1v_ray.cluster.transports import build_transport
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.jobs.train.inputs import RunInputs
from tinyr1v_ray.telemetry.progress import RunProgress

DEFAULT_CANARY_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25}
"""Nat. Float32 agrees to 1e-4; in bfloat16 two implementations round differently at every layer."""


class Machines:
    """Engines, scorers, learner and the publisher between them."""

    def __init__(self, config: TrainConfig, inputs: RunInputs, run_folder: Path) -> None:
        placement = plan_placement(config)
        self.learner = LearnerGroup(placement.learner, config, inputs.model_folder)
        self.rollouts = RolloutPool(placement.rollout, config, inputs.model_folder, inputs.max_images, inputs.stop_ids)
        self.rewards = RewardPool(placement.scorer, config)
        weights_folder = Path(config.weights.folder) / _weights_folder_name(run_folder)
        transport = build_transport(config, self.learner, self.rollouts, weights_folder)
        tolerance = config.weights.canary_tolerance or DEFAULT_CANARY_TOLERANCE[config.model.dtype]
        self.weights = VerifiedPublisher(transport, self.learner, self.rollouts, inputs.canary, tolerance)

    async def start(self, progress: RunProgress) -> None:
        """Wait for engines and learner, which load side by side."""

        async def engines() -> None:
            with progress.starting("rollout engines", "vLLM"):
                await self.rollouts.start()

        async def learner() -> None:
            with progress.starting("learner", "DeepSpeed"):
                await self.learner.start()

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(engines())
                tasks.create_task(learner())
        except BaseExceptionGroup as group:
            raise first_cause(group) from group
        await self.weights.connect()

    async def peak_memory_mib(self) -> dict[str, float]:
        """Largest resident memory of every actor, by name."""
        engines = await self.rollouts.peak_memory_mib()
        return engines | await self.learner.peak_memory_mib() | await self.rewards.peak_memory_mib()

    def close(self) -> None:
        """End every actor and remove the weights in memory."""
        for part in (self.rollouts, self.learner, self.rewards):
            part.kill()
        self.weights.close()


@asynccontextmanager
async def started(
    config: TrainConfig, inputs: RunInputs, run_folder: Path, progress: RunProgress
) -> AsyncIterator[Machines]:
    """The machines of a run, ended when the block is left, however it is left."""
    machines = Machines(config, inputs, run_folder)
    try:
        await machines.start(progress)
        yield machines
    finally:
        machines.close()


def _weights_folder_name(run_folder: Path) -> str:
    """One name per run folder, so that a resumed run finds and removes what a killed one left."""
    digest = hashlib.blake2b(str(run_folder.resolve()).encode(), digest_size=6).hexdigest()
    return f"tinyr1v-{run_folder.name}-{digest}"
