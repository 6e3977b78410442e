"""What advantages are made of: the groups of a step, the checks of their numbers, and the terms that several share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinyr1v_ray.config.algorithm import AlgorithmSettings
from tinyr1v_ray.errors import DataError

EPSILON = 1e-6
"""Added to every standard deviation before dividing by it."""


@dataclass(frozen=True)
class UsableGroup:
    """The completions of one prompt that were finished and scored; the arrays cannot be written to.

    `rewards_G` (float64), `lengths_G` (int64, tokens) and `correct_G` (bool, the domain's own verdict) are in the order
    of the completions; there is at least one.
    """

    prompt_id: str
    domain: str
    rewards_G: np.ndarray
    lengths_G: np.ndarray
    correct_G: np.ndarray

    def __post_init__(self) -> None:
        for values_G in (self.rewards_G, self.lengths_G, self.correct_G):
            values_G.flags.writeable = False


@dataclass(frozen=True)
class StepFacts:
    """What the advantages of a step may depend on: its groups, the settings, and what the steps before left.

    Groups without a usable completion are not among them. `max_tokens` is the longest completion. `state` is empty
    where an algorithm keeps nothing from step to step.
    """

    groups: tuple[UsableGroup, ...]
    settings: AlgorithmSettings
    max_tokens: int
    state: Mapping[str, float]


def checked_group(rewards_G: ArrayLike, lengths_G: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and lengths (tokens) of one group as float64 [G]; G may be 0.

    Raises DataError when they are not two vectors of one size, hold a NaN or an infinity, or a length is negative.
    """
    rewards_G = checked_rewards(rewards_G)
    lengths_G = np.asarray(lengths_G, np.float64)
    if lengths_G.shape != rewards_G.shape:
        raise DataError(
            f"lengths of shape {lengths_G.shape} for rewards of shape {rewards_G.shape}; "
            "a group has one length per reward; pass two vectors of one size"
        )
    if not np.isfinite(lengths_G).all() or (lengths_G < 0).any():
        raise DataError(
            f"lengths {lengths_G.tolist()}; a length is a finite number of tokens, 0 or more; correct the lengths"
        )
    return rewards_G, lengths_G


def checked_rewards(rewards_G: ArrayLike) -> np.ndarray:
    """Rewards of one group as float64 [G]; raises DataError when they are not a finite vector."""
    rewards_G = np.asarray(rewards_G, np.float64)
    if rewards_G.ndim != 1:
        raise DataError(f"rewards of shape {rewards_G.shape}; a group is a vector; pass one group at a time")
    if not np.isfinite(rewards_G).all():
        raise DataError(
            f"rewards {rewards_G.tolist()}; a reward is a finite number; leave unscored completions out of the group"
        )
    return rewards_G


def is_flat(values_G: np.ndarray) -> bool:
    """Whether a group holds nothing to compare: fewer than two values, or all of them exactly equal."""
    return values_G.size < 2 or bool((values_G == values_G[0]).all())


def length_scores(lengths_S: np.ndarray) -> np.ndarray:
    """sigmoid of the length's z-score, float64 [S] in (0, 1), 0.5 for all where all are equally long; S may be 0.

    >>> length_scores(np.array([10, 10, 40])).round(3).tolist()
    [0.33, 0.33, 0.804]
    """
    if is_flat(lengths_S):
        return np.full(lengths_S.shape, 0.5)
    return 1.0 / (1.0 + np.exp((lengths_S.mean() - lengths_S) / lengths_S.std()))


def length_term(lengths_G: np.ndarray, good_G: np.ndarray) -> np.ndarray:
    """Who is shorter among the good answers S: mean_S(s) - s with s their `length_scores`, 0 outside, float64 [G].

    It sums to zero, lies within (-1, 1), and is exactly zero with fewer than two good answers or one length.

    >>> length_term(np.array([10, 10, 40, 5]), np.array([True, True, True, False])).round(3).tolist()
    [0.158, 0.158, -0.316, 0.0]
    """
    term_G = np.zeros(lengths_G.shape, np.float64)
    if good_G.any():
        scores_S = length_scores(lengths_G[good_G])
        term_G[good_G] = scores_S.mean() - scores_S
    return term_G
