"""LIPO: Length-Informed Relative Policy Optimization (Tiny-R1V, arXiv 2510.08987), on one group at a time.

GRPO compares the G completions of a prompt by their rewards R_i in [0, 1]. LIPO also looks at their lengths L_i in
tokens, so that of two answers of like quality the shorter one is learned. [C]: certain from the paper's text or
figures. [R]: our reading, behind a switch of `LipoConfig`; the names in brackets are its fields.

1. Pairs. The completions are put in the order of (L, index) and neighbours are compared [C, figure]; `pairs="all"`
   compares every pair [R]. A pair (i, j) qualifies when L_i < L_j and |R_i - R_j| < xi (`reward_gap`), both strictly
   and in plain float64 [C in words; the value 0.1 R].
2. Boost. The shorter one of a qualifying pair gets R_adj = R (1 + `boost` phi(L)), at most once however many pairs
   it wins [R]. phi falls from 1 to 0 as L approaches U (`length_bound`) [C that it decays smoothly; the form R]:
   `cosine` (1 + cos(pi min(L/U, 1)))/2, `linear` 1 - min(L/U, 1), `exponential` exp(-L/U), which passes U above 0.
3. Weights. L_opt = max(2 min L, median L) [C] and w = exp(-|L - L_opt| / (kappa L_opt)) [C: a two-sided
   exponential; its scale kappa, `length_scale`, R].
4. Advantages (`advantage_mode`; sources support each, so `both` is ours [R]). With
   mu = sum(w R_adj)/sum(w), sigma^2 = sum(w (R_adj - mu)^2)/sum(w) and d = max(sigma, `std_floor`) + 1e-6:
   `both` A = w (R_adj - mu)/d; `statistics` A = (R_adj - mu)/d; `multiply` A = w (R_adj - mean)/d with the plain
   mean and standard deviation.

Where we depart from the paper, each switched off by 0: `min_quality` [R] boosts only answers of at least that
reward, so that a short wrong answer is never preferred for being short; `std_floor` [R] divides a spread below it by
the floor, so that a slight difference of length alone is not blown up to the scale of right against wrong.

Consequences worth knowing. L_opt is a brake against collapse: in a tight group (max L < 2 min L) every answer is
shorter than L_opt, so the longer ones weigh more. Under `all` nothing depends on the order of the completions; under
`adjacent` only that of equally long ones does, and of those the last alone can win against the next longer one.

Degenerate cases. A group of fewer than two gives zeros, and so does one in which all R_adj are equal (so also one of
equal rewards below `min_quality`): exact zeros, which the learner skips. L_opt is 0 only when at least half of the
answers are empty; lengths then have no scale, and all weights are 1. Weights too small for a float64 leave mu and
sigma as they are in the limit, since only the ratios of weights enter them. Rewards outside [0, 1] are taken as they
are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinyr1v_ray.algorithms.group import EPSILON, checked_group, is_flat
from tinyr1v_ray.config.algorithm import LipoConfig

__all__ = ["LipoConfig", "adjusted_rewards", "lipo_advantages"]


def adjusted_rewards(rewards_G: ArrayLike, lengths_G: ArrayLike, config: LipoConfig | None = None) -> np.ndarray:
    """R_adj, float64 [G]: rewards after the boost of the shorter answers (steps 1 and 2).

    Raises DataError on inputs that are not two finite vectors of one size with lengths of 0 or more.

    >>> adjusted_rewards([1, 1, 0], [128, 256, 64], LipoConfig(decay="linear", length_bound=512)).tolist()
    [1.15, 1.0, 0.0]
    """
    config = config or LipoConfig()
    rewards_G, lengths_G = checked_group(rewards_G, lengths_G)
    gains_G = 1.0 + config.boost * _decay(lengths_G, config)
    return np.where(_is_boosted(rewards_G, lengths_G, config), rewards_G * gains_G, rewards_G)


def lipo_advantages(rewards_G: ArrayLike, lengths_G: ArrayLike, config: LipoConfig | None = None) -> np.ndarray:
    """A, float64 [G]: the advantage that every token of a completion shares (steps 1 to 4).

    Raises DataError as `adjusted_rewards` does.

    >>> lipo_advantages([1, 1, 0, 0], [164, 217, 369, 389]).round(3).tolist()
    [0.782, 0.714, -0.771, -0.725]
    """
    config = config or LipoConfig()
    rewards_G, lengths_G = checked_group(rewards_G, lengths_G)
    adjusted_G = adjusted_rewards(rewards_G, lengths_G, config)
    if is_flat(adjusted_G):
        return np.zeros_like(adjusted_G)
    exponents_G = _log_weights(lengths_G, config)
    if config.advantage_mode == "multiply":
        statistics_weights_G = np.ones_like(adjusted_G)
    else:
        statistics_weights_G = np.exp(exponents_G - exponents_G.max())
    mean = np.average(adjusted_G, weights=statistics_weights_G)
    std = np.sqrt(np.average((adjusted_G - mean) ** 2, weights=statistics_weights_G))
    standardised_G = (adjusted_G - mean) / (max(std, config.std_floor) + EPSILON)
    if config.advantage_mode == "statistics":
        return standardised_G
    return np.exp(exponents_G) * standardised_G


def _is_boosted(rewards_G: np.ndarray, lengths_G: np.ndarray, config: LipoConfig) -> np.ndarray:
    """bool [G]: completions that are the shorter one of a qualifying pair and good enough."""
    if config.pairs == "all":
        shorter_GG = lengths_G[:, None] < lengths_G[None, :]
        alike_GG = np.abs(rewards_G[:, None] - rewards_G[None, :]) < config.reward_gap
        wins_G = (shorter_GG & alike_GG).any(axis=1)
    else:
        order = np.argsort(lengths_G, kind="stable")
        shorter, longer = order[:-1], order[1:]
        alike = np.abs(rewards_G[shorter] - rewards_G[longer]) < config.reward_gap
        wins_G = np.zeros(rewards_G.shape, bool)
        wins_G[shorter] = (lengths_G[shorter] < lengths_G[longer]) & alike
    return wins_G & (rewards_G >= config.min_quality)


def _decay(lengths_G: np.ndarray, config: LipoConfig) -> np.ndarray:
    """phi(L), float64 [G], in [0, 1]."""
    share_G = lengths_G / config.length_bound
    if config.decay == "exponential":
        return np.exp(-share_G)
    if config.decay == "linear":
        return 1.0 - np.minimum(share_G, 1.0)
    return (1.0 + np.cos(np.pi * np.minimum(share_G, 1.0))) / 2.0


def _log_weights(lengths_G: np.ndarray, config: LipoConfig) -> np.ndarray:
    """ln w = -|L - L_opt| / (kappa L_opt), float64 [G]; zeros when L_opt is 0. G is at least 1."""
    optimal_length = max(2.0 * lengths_G.min(), float(np.median(lengths_G)))
    if optimal_length == 0.0:
        return np.zeros_like(lengths_G)
    return -np.abs(lengths_G - optimal_length) / optimal_length / config.length_scale
