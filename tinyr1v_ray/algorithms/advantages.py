"""Which algorithm turns rewards and lengths into advantages, on which completions, and which groups it takes at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyr1v_ray.algorithms.baselines import dapo_advantages, dr_grpo_advantages, grpo_advantages, is_informative
from tinyr1v_ray.algorithms.lipo import lipo_advantages
from tinyr1v_ray.config.algorithm import AlgorithmSettings
from tinyr1v_ray.errors import RolloutError
from tinyr1v_ray.types import ScoredGroup

Advantage = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From rewards [G] and lengths [G] in tokens to advantages, float64 [G]."""


def build_advantage(settings: AlgorithmSettings, max_tokens: int) -> Advantage:
    """The advantage function of the algorithm named in the settings; `max_tokens` is the longest completion.

    >>> build_advantage(AlgorithmSettings(name="dr_grpo"), 96)(np.array([1.0, 0.0]), np.array([9, 9])).tolist()
    [0.5, -0.5]
    """
    if settings.name == "lipo":
        return lambda rewards_G, lengths_G: lipo_advantages(rewards_G, lengths_G, settings.lipo)
    if settings.name == "dapo":
        return lambda rewards_G, lengths_G: dapo_advantages(
            rewards_G,
            lengths_G,
            max_tokens=max_tokens,
            overlong_buffer=settings.dapo.overlong_buffer,
            overlong_penalty=settings.dapo.overlong_penalty,
        )
    plain = grpo_advantages if settings.name == "grpo" else dr_grpo_advantages
    return lambda rewards_G, lengths_G: plain(rewards_G)


def usable_advantages(group: ScoredGroup, advantage: Advantage) -> np.ndarray:
    """Advantages of a scored group, float64 [G]: compared among its usable completions alone, 0 for the others.

    An answer that was aborted or could not be scored has no reward: taking its 0 for one would push the others up.
    """
    usable_G = group.usable_G
    advantages_G = np.zeros(usable_G.shape, np.float64)
    advantages_G[usable_G] = advantage(group.rewards_G[usable_G], group.lengths_G[usable_G])
    return advantages_G


def build_accept(settings: AlgorithmSettings, num_prompts_per_step: int) -> Callable[[ScoredGroup], bool]:
    """Which groups are trained on: all of them, or with DAPO's dynamic sampling those that hold a signal."""
    if settings.name == "dapo" and settings.dapo.dynamic_sampling:
        return DynamicSampling(num_prompts_per_step, settings.dapo.max_replaced_share)
    return lambda group: True


class DynamicSampling:
    """Accepts groups whose usable rewards are not all equal (DAPO, arXiv 2503.14476, eq. 11), in whole steps.

    A group with a completion that could not be scored is accepted too: a broken scorer must be seen, not replaced.

    Called on the groups in the order of training. Raises RolloutError when more than `max_replaced_share` times
    `num_prompts_per_step` groups were turned away within one step, since the run would then sample for ever.
    """

    def __init__(self, num_prompts_per_step: int, max_replaced_share: float) -> None:
        self._num_prompts = num_prompts_per_step
        self._max_replaced = max_replaced_share * num_prompts_per_step
        self._num_accepted = 0
        self._num_replaced = 0

    def __call__(self, group: ScoredGroup) -> bool:
        """Whether the group is trained on."""
        if is_informative(group.rewards_G[group.usable_G]) or not group.usable_G.all():
            self._num_accepted += 1
            if self._num_accepted == self._num_prompts:
                self._num_accepted = self._num_replaced = 0
            return True
        self._num_replaced += 1
        if self._num_replaced > self._max_replaced:
            raise RolloutError(
                f"{self._num_replaced} groups without signal in one step of {self._num_prompts}; dynamic sampling "
                f"replaces at most {self._max_replaced:g} (algorithm.dapo.max_replaced_share); use data of another "
                "difficulty, raise the share or set algorithm.dapo.dynamic_sampling=false"
            )
        return False
