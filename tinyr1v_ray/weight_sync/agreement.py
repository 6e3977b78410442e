"""Do engine and learner hold the same weights? Asked after every update, with a fixed prompt: the canary."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinyr1v_ray.errors import WeightSyncError


def check_agreement(
    version: int, learner_logprobs_T: np.ndarray, engine_logprobs: Mapping[str, np.ndarray], tolerance: float
) -> float:
    """Largest difference (nat) between the learner's and any engine's log-probs of the canary's tokens.

    `engine_logprobs` maps an engine's name to its float32 [T]. Raises WeightSyncError, saying which engine, which
    token and both values, when a difference exceeds `tolerance` or a value is not finite.
    """
    worst = 0.0
    for engine, logprobs_T in engine_logprobs.items():
        difference_T = np.abs(logprobs_T.astype(np.float64) - learner_logprobs_T.astype(np.float64))
        difference_T = np.where(np.isfinite(difference_T), difference_T, np.inf)
        position = int(difference_T.argmax())
        if difference_T[position] > tolerance:
            raise WeightSyncError(
                f"version {version}: {engine} gives log-prob {logprobs_T[position]:.6g} to token {position} of the "
                f"canary, the learner {learner_logprobs_T[position]:.6g}; they may differ by "
                f"weights.canary_tolerance {tolerance:g} at most; the engine did not take the weights over, or the two "
                "compute differently (dtype, pixel limits)"
            )
        worst = max(worst, float(difference_T[position]))
    return worst
