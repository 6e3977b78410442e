"""Which algorithm turns rewards and lengths into advantages, and on which completions of a group it is let loose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyr1v_ray.algorithms.baselines import dapo_advantages, dr_grpo_advantages, grpo_advantages
from tinyr1v_ray.algorithms.lipo import lipo_advantages
from tinyr1v_ray.config.algorithm import AlgorithmSettings
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
