"""The advantages that LIPO is compared with: GRPO, Dr. GRPO and DAPO, each on one group at a time.

What tells them apart beside these functions is in the policy loss: DAPO clips asymmetrically and averages over
tokens, Dr. GRPO divides by a constant. In all of them a group that has nothing to compare (fewer than two
completions, or all compared values equal) gives exact zeros, which the learner skips.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinyr1v_ray.algorithms.group import EPSILON, checked_group, checked_rewards, is_flat


def grpo_advantages(rewards_G: ArrayLike) -> np.ndarray:
    """GRPO (arXiv 2402.03300, section 4.1.2): (R - mean)/(std + 1e-6), float64 [G], with the population's std.

    >>> grpo_advantages([1, 1, 0, 0]).round(4).tolist()
    [1.0, 1.0, -1.0, -1.0]
    """
    rewards_G = checked_rewards(rewards_G)
    if is_flat(rewards_G):
        return np.zeros_like(rewards_G)
    return (rewards_G - rewards_G.mean()) / (rewards_G.std() + EPSILON)


def dr_grpo_advantages(rewards_G: ArrayLike) -> np.ndarray:
    """Dr. GRPO (arXiv 2503.20783, section 3): R - mean, float64 [G].

    Without the division a question that is nearly always right or wrong weighs no more than one in between.

    >>> dr_grpo_advantages([1, 0, 0, 0]).tolist()
    [0.75, -0.25, -0.25, -0.25]
    """
    rewards_G = checked_rewards(rewards_G)
    if is_flat(rewards_G):
        return np.zeros_like(rewards_G)
    return rewards_G - rewards_G.mean()


def dapo_advantages(
    rewards_G: ArrayLike, lengths_G: ArrayLike, *, max_tokens: int, overlong_buffer: int, overlong_penalty: float
) -> np.ndarray:
    """DAPO (arXiv 2503.14476): GRPO's advantage of the rewards less the soft overlong penalty, float64 [G].

    >>> dapo_advantages([1, 1], [50, 100], max_tokens=100, overlong_buffer=20, overlong_penalty=1.0).round(4).tolist()
    [1.0, -1.0]
    """
    rewards_G, lengths_G = checked_group(rewards_G, lengths_G)
    return grpo_advantages(rewards_G - overlong_penalties(lengths_G, max_tokens, overlong_buffer, overlong_penalty))


def overlong_penalties(
    lengths_G: np.ndarray, max_tokens: int, overlong_buffer: int, overlong_penalty: float
) -> np.ndarray:
    """Soft overlong punishment (arXiv 2503.14476, eq. 13), float64 [G], 0 or more: what is taken off the reward.

    Nothing up to max_tokens - overlong_buffer, from there linear up to `overlong_penalty` at max_tokens, and no more
    beyond. A buffer longer than max_tokens counts as max_tokens.

    >>> overlong_penalties(np.array([80, 90, 100, 120]), 100, 20, 1.0).tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    buffer = min(overlong_buffer, max_tokens)
    return overlong_penalty * np.clip((np.asarray(lengths_G, np.float64) - (max_tokens - buffer)) / buffer, 0.0, 1.0)


def is_informative(rewards_G: ArrayLike) -> bool:
    """Whether DAPO's dynamic sampling (arXiv 2503.14476, eq. 11) keeps a group: its rewards are not all equal.

    It looks at the rewards before shaping, as the paper does at the number of right answers: a group that is all right
    or all wrong is replaced, even where its lengths differ.

    >>> is_informative([1, 1, 0]), is_informative([0, 0, 0])
    (True, False)
    """
    return not is_flat(checked_rewards(rewards_G))
