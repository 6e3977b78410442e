"""LIPO training over ports: the whole algorithm on one screen, synchronous and asynchronous alike."""

from __future__ import annotations

import asyncio

from tinyr1v_ray.data.batching import build_train_batch
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.ports import LoopConfig, System
from tinyr1v_ray.rollout.window import StalenessWindow
from tinyr1v_ray.telemetry.timing import PhaseClock
from tinyr1v_ray.types import Prompt, ScoredGroup


async def train(system: System, config: LoopConfig, clock: PhaseClock) -> None:
    """Run steps `first_step` to `num_steps`; a producer that dies ends the run with its own cause."""
    window = StalenessWindow((config.max_staleness + 1) * config.num_prompts_per_step)
    cursor, state = config.cursor, config.state
    async with asyncio.TaskGroup() as tasks:
        producer = tasks.create_task(_produce(system, window, config.cursor, tasks))
        for step in range(config.first_step, config.num_steps + 1):
            with clock("generate"):
                groups, num_rejected = await window.take(config.num_prompts_per_step, config.accept)
            cursor += len(groups) + num_rejected
            advantages = config.advantages(groups, state)
            advantages_PG, state = advantages.by_group_PG, advantages.state
            batch = build_train_batch(step, groups, advantages_PG, config.num_minibatches, config.keep_zero_advantages)
            await system.devices.to_learner()
            with clock("learn"):
                update = await system.learner.update(batch)
            await system.devices.to_engines()
            with clock("publish"):
                await system.weights.publish(update.version)
            with clock("evaluate"):
                await system.held_out.evaluate(step)
            if step < config.num_steps:
                window.release(len(groups))  # only now may a new prompt start
            system.metrics.log(step, update, groups, advantages, num_rejected, clock.lap())
            with clock("checkpoint"):  # after the log, so that what a checkpoint counts as consumed is on record
                await system.checkpoints.after_step(step, cursor, state)
        producer.cancel()


async def _produce(system: System, window: StalenessWindow, cursor: int, tasks: asyncio.TaskGroup) -> None:
    for prompt in system.prompts.iterate(cursor):
        tasks.create_task(_roll_out(system, await window.admit(), prompt))
        await asyncio.sleep(0)  # the engines get it before the next prompt is waited for
    raise DataError("the prompt source ended; a run goes through its data again and again; pass one that never ends")


async def _roll_out(system: System, scored: asyncio.Future[ScoredGroup], prompt: Prompt) -> None:
    scored.set_result(await system.rewards.score(await system.rollouts.generate(prompt)))
