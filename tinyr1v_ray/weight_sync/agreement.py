"""Do engine and learner hold the same weights? Judged after every update by the log-probs of a few tokens: the canary.

Compared are log-probs over 1 - p: since d log p = (1 - p) (dz - mean of the other dz), that is how far logits z are
apart, whether the policy is sure of a token or not. Mean and tail are judged, since faults differ: a tensor that did
not arrive moves nearly all tokens, a stale cache may move a few by much. How far two sound implementations lie apart
depends on arithmetic, kernels and model: in bfloat16 logits between 16 and 32 are held in steps of 0.125. So the limits
are learned from the first version, which both sides have read from the same files, within bounds that no sound pair
leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_DOUBT = 0.01
"""1 - p is taken to be at least that: what a float32 log-prob next to 0 has lost to rounding must not be blown up."""


@dataclass(frozen=True)
class Gap:
    """How far an engine's logits are from the learner's: on average, and at `token`, where it is most."""

    mean: float
    tail: float
    token: int
    engine_logprob: float
    learner_logprob: float


@dataclass(frozen=True)
class Limits:
    """The largest mean and the largest single difference of logits that are allowed."""

    mean: float
    tail: float

    def admit(self, gap: Gap) -> bool:
        """Whether engine and learner agree; what is not finite never does."""
        return gap.mean <= self.mean and gap.tail <= self.tail


LEAST = {"float32": Limits(2.5e-4, 1e-3), "bfloat16": Limits(2**-5, 2**-1)}
"""Always allowed. Float32 agrees to 1e-4. In bfloat16 engine and learner each round a token's logit and its normaliser
by up to half a step, so sound ones may lie two steps apart: 2^-1 where logits reach 32. 2^-5 is a step from 4 on."""
MOST = {"float32": Limits(2.5e-3, 1e-2), "bfloat16": Limits(0.25, 1.0)}
"""Never exceeded, the first version included."""
_MARGIN = 4.0
"""Learned limits lie that far above what the first version showed: weights move on, and 32 tokens are a small sample
(the largest of 32 normal errors is 2.3 standard deviations, give or take 0.4)."""


def gap_between(learner_logprobs_T: np.ndarray, engine_logprobs_T: np.ndarray) -> Gap:
    """What lies between two float32 [T] of the same tokens; infinite where one is not finite.

    >>> gap = gap_between(np.log([0.5, 0.9]), np.log([0.5, 0.91]))  # log(0.91 / 0.9) / 0.1
    >>> gap.token, round(gap.tail, 3), round(gap.mean, 3)
    (1, 0.11, 0.055)
    """
    learner_T, engine_T = learner_logprobs_T.astype(np.float64), engine_logprobs_T.astype(np.float64)
    difference_T = np.abs(engine_T - learner_T) / np.maximum(-np.expm1(learner_T), LEAST_DOUBT)
    difference_T = np.where(np.isfinite(difference_T), difference_T, np.inf)
    token = int(difference_T.argmax())
    return Gap(
        float(difference_T.mean()), float(difference_T[token]), token, float(engine_T[token]), float(learner_T[token])
    )


def fixed_limits(tolerance: float) -> Limits:
    """What `weights.canary_tolerance` allows a single token, and a quarter of it on average."""
    return Limits(tolerance / 4, tolerance)


def learned_limits(dtype: str, mean: float, tail: float) -> Limits:
    """Limits for later versions, from the mean and the tail of the first; in the engines' arithmetic.

    >>> learned_limits("bfloat16", mean=0.02, tail=0.01)
    Limits(mean=0.08, tail=0.5)
    """
    least, most = LEAST[dtype], MOST[dtype]
    return Limits(
        min(max(_MARGIN * mean, least.mean), most.mean),
        min(max(_MARGIN * tail, least.tail), most.tail),
    )
