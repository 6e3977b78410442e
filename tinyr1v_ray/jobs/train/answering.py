"""Held-out answers from the rollout engines: every item sampled once and scored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tinyr1v_ray.cluster.reward_pool import RewardPool
from tinyr1v_ray.cluster.rollout_pool import RolloutPool
from tinyr1v_ray.evaluation.held_out import HeldOutAnswer, as_answer
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import Prompt


async def answer_items(
    prompts: Sequence[Prompt],
    rollouts: RolloutPool,
    rewards: RewardPool,
    sampling: Sampling,
    on_done: Callable[[int], None],
) -> list[HeldOutAnswer]:
    """One scored answer per prompt, in the order of the prompts; `on_done` hears of each."""

    async def answer(prompt: Prompt) -> HeldOutAnswer:
        scored = await rewards.score(await rollouts.sample(prompt, sampling))
        on_done(1)
        return as_answer(scored)

    return list(await asyncio.gather(*(answer(prompt) for prompt in prompts)))
