"""Group-relative length penalty: right answers earn less the longer they are among their like (arXiv 2502.04463).

For a right answer R' = R (1 - alpha s), with s the sigmoid of its length's z-score among the group's right answers
[C]; the reward of a wrong one stays, which is 0 in the paper and here may hold a format term [R]. Advantages are GRPO's
of R' [R: the paper takes leave-one-out means], so that runs to be compared differ in the reward alone. Length acts
through the reward: it changes the group's mean and spread, and so also what wrong answers get.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinyr1v_ray.algorithms.baselines import grpo_advantages
from tinyr1v_ray.algorithms.group import checked_group, length_scores


def length_penalty_advantages(
    rewards_G: ArrayLike, lengths_G: ArrayLike, correct_G: ArrayLike, alpha: float
) -> np.ndarray:
    """GRPO's advantage of the penalised rewards, float64 [G]. Raises DataError as `checked_group` does.

    >>> length_penalty_advantages([1, 1, 0], [10, 30, 5], [True, True, False], alpha=0.2).round(3).tolist()
    [0.813, 0.596, -1.409]
    """
    rewards_G, lengths_G = checked_group(rewards_G, lengths_G)
    right_G = np.asarray(correct_G, bool)
    penalised_G = rewards_G.copy()
    penalised_G[right_G] *= 1.0 - alpha * length_scores(lengths_G[right_G])
    return grpo_advantages(penalised_G)
