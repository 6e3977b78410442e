"""LIPO training over ports: the whole algorithm on one screen, synchronous and asynchronous alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinyr1v_ray.data.batching import build_train_batch
from tinyr1v_ray.ports import System
from tinyr1v_ray.rollout.window import StalenessWindow
from tinyr1v_ray.telemetry.timing import PhaseClock
from tinyr1v_ray.types import Prompt, ScoredGroup


@dataclass(frozen=True)
class LoopConfig:
    """What the loop needs to know; `first_step` and `cursor` are 1 and 0, or a checkpoint's."""

    num_steps: int
    num_prompts_per_step: int
    max_staleness: int
    num_minibatches: int
    keep_zero_advantages: bool
    advantages: Callable[[ScoredGroup], np.ndarray]
    accept: Callable[[ScoredGroup], bool]
    first_step: int = 1
    cursor: int = 0


async def train(system: System, config: LoopConfig, clock: PhaseClock) -> None:
    """Run steps `first_step` to `num_steps`; a producer that dies ends the run with its own cause."""
    window = StalenessWindow((config.max_staleness + 1) * config.num_prompts_per_step)
    cursor = config.cursor
    async with asyncio.TaskGroup() as tasks:
        producer = tasks.create_task(_produce(system, window, config.cursor, tasks))
        for step in range(config.first_step, config.num_steps + 1):
            with clock("generate"):
                groups, num_rejected = await window.take(config.num_prompts_per_step, config.accept)
            cursor += len(groups) + num_rejected
            advantages_PG = [config.advantages(group) for group in groups]
            batch = build_train_batch(step, groups, advantages_PG, config.num_minibatches, config.keep_zero_advantages)
            with clock("learn"):
                update = await system.learner.update(batch)
            with clock("publish"):
                await system.weights.publish(update.version)
            window.release(len(groups))  # only now may a new prompt start
            with clock("checkpoint"):
                await system.checkpoints.after_step(step, cursor)
            system.metrics.log(step, update, groups, advantages_PG, clock.lap())
        producer.cancel()


async def _produce(system: System, window: StalenessWindow, cursor: int, tasks: asyncio.TaskGroup) -> None:
    for prompt in system.prompts.iterate(cursor):
        tasks.create_task(_roll_out(system, await window.admit(), prompt))


async def _roll_out(system: System, scored: asyncio.Future[ScoredGroup], prompt: Prompt) -> None:
    scored.set_result(await system.rewards.score(await system.rollouts.generate(prompt)))
