"""The components of one attempt at a run: started side by side, joined, and ended together."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tinyr1v_ray.cluster.calls import first_cause
from tinyr1v_ray.cluster.connection import nodes
from tinyr1v_ray.cluster.devices import OwnDevices, SharedDevices
from tinyr1v_ray.cluster.handle import Handle, spawn
from tinyr1v_ray.cluster.learner_group import LearnerGroup
from tinyr1v_ray.cluster.placement import plan_placement
from tinyr1v_ray.cluster.reservation import Reservation
from tinyr1v_ray.cluster.reward_pool import RewardPool
from tinyr1v_ray.cluster.rollout_pool import start_engines
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.jobs.train.inputs import RunInputs
from tinyr1v_ray.jobs.train.rollouts import TrainingRollouts
from tinyr1v_ray.jobs.train.watched import WatchedClock
from tinyr1v_ray.learner.rank import LearnerRank, Objective
from tinyr1v_ray.learner.start import start_learner
from tinyr1v_ray.ports import Devices
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.telemetry.progress import RunProgress
from tinyr1v_ray.telemetry.timing import PhaseClock
from tinyr1v_ray.weight_sync.publisher import VerifiedPublisher
from tinyr1v_ray.weight_sync.transport import Edge


def objective_of(config: TrainConfig) -> Objective:
    """What a run's learner optimises."""
    rollout = config.rollout
    return Objective(config.algorithm, rollout.temperature, rollout.max_tokens, config.run.num_steps)


class Components:
    """Engines, scorers, learner and the publisher between them, each given its own settings."""

    def __init__(self, config: TrainConfig, inputs: RunInputs, run_folder: Path, clock: PhaseClock) -> None:
        placement = plan_placement(config.rollout, config.reward, config.learner, config.placement)
        self._reservation = Reservation(placement, nodes())
        self._start_rank = partial(
            start_learner, config.learner, config.model, objective_of(config), inputs.model_folder
        )
        ranks: list[Handle[LearnerRank]] = [spawn(spec, None, self._reservation) for spec in placement.learner]
        self.learner = LearnerGroup(ranks, config.learner)
        engine = config.rollout.engine_settings(config.model, config.run.seed, config.weights, config.placement)
        self.engines = start_engines(
            placement.rollout, engine, inputs.model_folder, inputs.max_images, inputs.stop_ids, self._reservation, ranks
        )
        self.clock, self._takes_turns = clock, config.placement.colocate
        self.devices: Devices = OwnDevices()
        if self._takes_turns:
            self.devices = SharedDevices(self.engines, self.learner, config.weights.timeout_s, self.clock)
        rollout, run = config.rollout, config.run
        sampling = Sampling(rollout.num_completions, rollout.temperature, rollout.top_p, rollout.max_tokens, run.seed)
        step_size = run.num_prompts_per_step if rollout.deterministic else None
        self.rollouts = TrainingRollouts(self.engines, sampling, step_size)
        self.rewards = RewardPool(placement.scorer, config.reward, self._reservation)
        edge = Edge(self.learner, self.engines, config.weights, config.model.dtype, _label(run_folder))
        self.weights = VerifiedPublisher(edge, inputs.canary, rollout.max_tokens)

    async def start(self, progress: RunProgress) -> None:
        """Wait for engines and learner, which load side by side; on the same devices engines first, which then sleep.

        An engine measures at its start how much of the device is free.
        """
        progress.board.loads = self.loads

        async def engines() -> None:
            with progress.starting("rollout engines", "vLLM"):
                await self.engines.start()
                await self.devices.to_learner()

        async def learner() -> None:
            with progress.starting("learner", "DeepSpeed"):
                await self.learner.start(self._start_rank)

        if self._takes_turns:
            await engines()
            await learner()
        else:
            await side_by_side(engines(), learner())
        await self.weights.connect()

    async def publish(self, version: int) -> None:
        """Make the learner's weights live in every engine, outside of the loop."""
        await self.devices.to_engines()
        await self.weights.publish(version)

    async def peak_memory_mib(self) -> dict[str, float]:
        """Largest resident memory of every actor, by name."""
        engines = await self.engines.peak_memory_mib()
        return engines | await self.learner.peak_memory_mib() | await self.rewards.peak_memory_mib()

    def loads(self) -> dict[str, dict[str, Any]]:
        """What engines and scorers have in hand, by name."""
        return self.engines.loads() | self.rewards.loads()

    def close(self) -> None:
        """End every actor and remove the weights in memory."""
        self.rollouts.close()
        for part in (self.engines, self.learner, self.rewards):
            part.kill()
        self._reservation.release()
        self.weights.close()


async def side_by_side(*starting: Coroutine[Any, Any, None]) -> None:
    """Until all are done; the first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for each in starting:
                tasks.create_task(each)
    except BaseExceptionGroup as group:
        raise first_cause(group) from group


@asynccontextmanager
async def started(
    config: TrainConfig, inputs: RunInputs, run_folder: Path, progress: RunProgress
) -> AsyncIterator[Components]:
    """The components of an attempt, ended when the block is left, however it is left."""
    components = Components(config, inputs, run_folder, WatchedClock(progress.board))
    try:
        await components.start(progress)
        yield components
    finally:
        components.close()


def _label(run_folder: Path) -> str:
    """One name per run folder, so that a resumed run finds and removes what a killed one left."""
    digest = hashlib.blake2b(str(run_folder.resolve()).encode(), digest_size=6).hexdigest()
    return f"tinyr1v-{run_folder.name}-{digest}"
