"""Truncation alone, normalised over the batch: the advantage of DLER (arXiv 2510.15110), on a whole step.

The reward of an answer above a length limit is 0 (section 2), and the group's mean is taken off as in Dr. GRPO; what is
left is divided by its standard deviation over the step instead of the group (eq. 3) [C]. The paper also takes off the
mean over the step: over responses that is 0 by construction. Statistics are over responses [R; the authors' code
counts each token]. An answer that fills `rollout.max_tokens` was cut and counts as too long.

The higher clip comes with the name (`clip_high` 0.28) [C]. Dynamic sampling, which DLER has too, does not: all
algorithms here are compared on the same groups. Groups without signal stay exact zeros and lower the step's deviation.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from tinyr1v_ray.algorithms.baselines import dr_grpo_advantages
from tinyr1v_ray.algorithms.group import EPSILON, checked_group


def dler_advantages(groups: Iterable[tuple[ArrayLike, ArrayLike]], length_limit: int) -> list[np.ndarray]:
    """Advantages of a step, float64 [G] for each (rewards [G], lengths [G]). Raises DataError as `checked_group` does.

    >>> [a.round(3).tolist() for a in dler_advantages([([1, 1], [9, 99]), ([0, 0], [5, 5])], length_limit=50)]
    [[1.414, -1.414], [0.0, 0.0]]
    """
    centred_PG = [_centred(rewards_G, lengths_G, length_limit) for rewards_G, lengths_G in groups]
    std = float(np.std(np.concatenate(centred_PG))) if centred_PG else 0.0
    return [centred_G / (std + EPSILON) for centred_G in centred_PG]


def _centred(rewards_G: ArrayLike, lengths_G: ArrayLike, length_limit: int) -> np.ndarray:
    rewards_G, lengths_G = checked_group(rewards_G, lengths_G)
    return dr_grpo_advantages(np.where(lengths_G > length_limit, 0.0, rewards_G))
