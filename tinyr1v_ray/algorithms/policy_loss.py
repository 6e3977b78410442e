"""The policy loss: clipped surrogate, k3 KL to a frozen reference, truncated importance weight, one denominator.

For completion token t of row b, with advantage A_b and three policies (pi the one being differentiated, pi_prox the
learner's before the first optimizer step of an update, pi_roll the engine that sampled):

    r_t = pi / pi_prox                                        ratio, 1 in the first optimizer step
    c_t = min(pi_prox / pi_roll, cap)                         truncated importance weight, detached
    s_t = min(r_t A_b, clip(r_t, 1 - low, 1 + high) A_b)      clipped surrogate
    k_t = pi_ref / pi - 1 - log(pi_ref / pi)                  k3 estimate of KL(pi || pi_ref)
    loss = sum_t w_t (beta k_t - c_t s_t)

Sources: clip, PPO (arXiv 1707.06347, eq. 7); its asymmetry and the token mean, DAPO (arXiv 2503.14476); k3, Schulman's
"Approximating KL divergence" and GRPO (arXiv 2402.03300, eq. 4); the importance weight against the sampling engine,
truncated importance sampling (IMPALA's rho-bar, arXiv 1802.01561). That the paper uses such a surrogate and KL is its
framework's default [R].

The weights w_t sum to one over *all* usable completions of an optimizer step. Micro-batches and ranks therefore add
up to the same loss and gradient, however the step is divided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tinyr1v_ray.config.algorithm import AlgorithmSettings

MISMATCH_BAND = (0.9, 1.1)
"""Ratios pi_prox / pi_roll outside this band are counted as mismatched."""

MAX_LOG_RATIO = 20.0
"""Differences of log-probs are cut here before exp, so that one broken token cannot make the loss infinite."""


@dataclass(frozen=True)
class SampledTokens:
    """What is fixed about the completion tokens of a micro-batch, all rows concatenated (T).

    `proximal_logprobs_T` None means that pi_prox is the differentiated policy itself, detached: exact when an update
    has a single optimizer step. `reference_logprobs_T` None leaves the KL term out. Tokens of weight 0 (padding of a
    rank without work) count nowhere, neither in the loss nor in the metrics.
    """

    rollout_logprobs_T: Tensor
    advantages_T: Tensor
    weights_T: Tensor
    proximal_logprobs_T: Tensor | None = None
    reference_logprobs_T: Tensor | None = None


def token_weights(
    lengths_B: np.ndarray,
    num_loss_tokens: int,
    num_loss_rows: int,
    average: Literal["token", "sequence", "constant"],
    max_tokens: int,
) -> np.ndarray:
    """Weight w of each token of rows with these lengths, float64 [B]; all tokens of a row weigh the same.

    `num_loss_tokens` and `num_loss_rows` count the usable completions of the whole optimizer step.
    token: 1 / tokens. sequence: 1 / (rows * own length). constant: 1 / (rows * max_tokens), Dr. GRPO's (arXiv
    2503.20783).

    >>> token_weights(np.array([2, 6]), 8, 2, "token", 10).tolist()
    [0.125, 0.125]
    >>> token_weights(np.array([2, 5]), 7, 2, "sequence", 10).tolist()
    [0.25, 0.1]
    >>> token_weights(np.array([2, 6]), 8, 2, "constant", 10).tolist()
    [0.05, 0.05]
    """
    lengths_B = np.asarray(lengths_B, np.float64)
    if average == "token":
        return np.full_like(lengths_B, 1.0 / num_loss_tokens)
    if average == "sequence":
        return 1.0 / (num_loss_rows * lengths_B)
    return np.full_like(lengths_B, 1.0 / (num_loss_rows * max_tokens))


def policy_loss(
    logprobs_T: Tensor, tokens: SampledTokens, settings: AlgorithmSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """This micro-batch's part of the step's loss (add the parts up), and sums over its tokens for the metrics.

    `logprobs_T` (float32, differentiable) are those of the policy being trained. Sums, each to be divided by the
    step's `num_trained_tokens`:
    clip_fraction: tokens whose gradient the clip removes; kl: k3 against the reference (0 without one);
    mismatch_kl: k3 estimate of KL(pi_roll || pi_prox) = q - 1 - log q with q = pi_prox / pi_roll;
    ratio_outside_share: tokens with q outside [0.9, 1.1].
    """
    detached_T = logprobs_T.detach()
    proximal_T = detached_T if tokens.proximal_logprobs_T is None else tokens.proximal_logprobs_T
    mismatch_T = _exp(proximal_T - tokens.rollout_logprobs_T)
    surrogate_T, clipped_T = _clipped_surrogate(
        _exp(logprobs_T - proximal_T), tokens.advantages_T, settings.clip_low, settings.clip_high
    )
    if settings.importance_cap > 0:
        surrogate_T = surrogate_T * mismatch_T.clamp(max=settings.importance_cap)
    loss_T = -surrogate_T
    kl_T = torch.zeros_like(detached_T)
    if tokens.reference_logprobs_T is not None:
        kl_T = _k3(tokens.reference_logprobs_T - logprobs_T)
        loss_T = loss_T + settings.kl_coefficient * kl_T
    counted_T = tokens.weights_T > 0
    low, high = MISMATCH_BAND
    sums = {
        "num_trained_tokens": counted_T.sum(),
        "clip_fraction": (clipped_T & counted_T).sum(),
        "kl": (kl_T.detach() * counted_T).sum(),
        "mismatch_kl": (_k3(proximal_T - tokens.rollout_logprobs_T) * counted_T).sum(),
        "ratio_outside_share": (((mismatch_T < low) | (mismatch_T > high)) & counted_T).sum(),
    }
    return (loss_T * tokens.weights_T).sum(), sums


def _clipped_surrogate(ratio_T: Tensor, advantages_T: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """PPO's pessimistic bound, and where its clip is active (there the gradient is zero)."""
    free_T = ratio_T * advantages_T
    bound_T = ratio_T.clamp(1.0 - low, 1.0 + high) * advantages_T
    return torch.minimum(free_T, bound_T), bound_T < free_T


def _k3(log_ratio_T: Tensor) -> Tensor:
    """exp(d) - 1 - d: never negative, and unbiased for the KL under the policy in the ratio's denominator."""
    log_ratio_T = log_ratio_T.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(log_ratio_T) - log_ratio_T


def _exp(log_ratio_T: Tensor) -> Tensor:
    return log_ratio_T.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
