"""DDCA: Dynamic Decoupled Conditional Advantage (arXiv 2602.02099), on one group at a time.

Right and wrong are told apart as GRPO does, by the verdicts alone; lengths are compared among the n right answers of
the group alone, and weighted by its pass rate n/G, so that a hard prompt is hardly pressed. The definition is that of
the authors' code (its variant for GRPO) and of the paper's abstract [C]; the paper's equations could not be read [R].
The code's second variant, with leave-one-out means, is this one with the length term times n/(n - 1) and without the
division by the standard deviation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinyr1v_ray.algorithms.baselines import grpo_advantages
from tinyr1v_ray.algorithms.group import checked_group, length_term


def ddca_advantages(correct_G: ArrayLike, lengths_G: ArrayLike, beta: float) -> np.ndarray:
    """A = GRPO(correct) + beta (n/G) (mean(s) - s) on the right answers, float64 [G].

    s is the sigmoid of the length's z-score among the right answers, the mean is theirs. Raises DataError as
    `checked_group` does.

    >>> ddca_advantages([True, True, False, False], [10, 30, 5, 5], beta=0.2).round(3).tolist()
    [1.023, 0.977, -1.0, -1.0]
    """
    verdicts_G, lengths_G = checked_group(correct_G, lengths_G)
    right_G = verdicts_G > 0.0
    pass_rate = np.count_nonzero(right_G) / max(right_G.size, 1)
    return grpo_advantages(verdicts_G) + beta * pass_rate * length_term(lengths_G, right_G)
