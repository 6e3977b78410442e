"""The rollouts of a training: groups drawn as its settings say, on a pool of engines."""

from __future__ import annotations

import asyncio
from functools import partial

from tinyr1v_ray.cluster.rollout_pool import RolloutPool
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import Prompt, RolloutGroup


class TrainingRollouts:
    """Port `RolloutEngine`. With a `step_size` the groups of a step are admitted as one batch (deterministic mode)."""

    def __init__(self, pool: RolloutPool, sampling: Sampling, step_size: int | None) -> None:
        self._pool, self._sampling, self._step_size = pool, sampling, step_size
        self._batch: list[tuple[Prompt, asyncio.Future[RolloutGroup]]] = []
        self._tasks: set[asyncio.Task[list[RolloutGroup]]] = set()

    async def generate(self, prompt: Prompt) -> RolloutGroup:
        """One training group."""
        if self._step_size is None:
            return await self._pool.sample(prompt, self._sampling)
        future: asyncio.Future[RolloutGroup] = asyncio.get_running_loop().create_future()
        self._batch.append((prompt, future))
        if len(self._batch) == self._step_size:
            batch, self._batch = self._batch, []
            for index in range(self._pool.num_engines):
                self._sample_share(index, batch[index :: self._pool.num_engines])
        return await future

    def close(self) -> None:
        """Whoever waits for a group of a batch waits no longer."""
        for task in self._tasks:
            task.cancel()

    def _sample_share(self, index: int, batch: list[tuple[Prompt, asyncio.Future[RolloutGroup]]]) -> None:
        prompts, futures = [prompt for prompt, _ in batch], [future for _, future in batch]
        self._tasks.add(task := asyncio.create_task(self._pool.sample_share(index, prompts, self._sampling)))
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(partial(_deliver, futures))


def _deliver(futures: list[asyncio.Future[RolloutGroup]], task: asyncio.Task[list[RolloutGroup]]) -> None:
    """Hand a batch's outcome, whatever it is, to those who wait for its groups."""
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    for index, future in enumerate(futures):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result()[index])
