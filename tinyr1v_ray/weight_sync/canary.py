"""The canary: a prompt, tokens that an engine chose for it, and how far engines and learner may differ on them."""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from tinyr1v_ray.errors import WeightSyncError
from tinyr1v_ray.learner.rank import LearnerRank
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import Prompt
from tinyr1v_ray.weight_sync.agreement import MOST, Gap, fixed_limits, gap_between, learned_limits
from tinyr1v_ray.weight_sync.transport import Edge

MAX_TOKENS = 32

logger = logging.getLogger(__name__)


class Canary:
    """Compares every engine with the learner. `prompt` has an image where the data has images, so that the vision tower
    is checked too; `max_tokens` is the longest completion.

    The tokens are an engine's own greedy ones of the first version, so they are what the policy says, in its own style.
    """

    def __init__(self, edge: Edge, prompt: Prompt, max_tokens: int) -> None:
        self._edge, self._prompt = edge, prompt
        self._sampling = Sampling(1, 0.0, 1.0, min(MAX_TOKENS, max_tokens), seed=0, shares_cache=False)
        self._token_ids_T: np.ndarray | None = None
        tolerance = edge.settings.canary_tolerance
        self._limits = fixed_limits(tolerance) if tolerance else MOST[edge.dtype]
        self._learns = not tolerance

    async def differing(self, version: int) -> dict[str, WeightSyncError]:
        """Engines that do not agree with the learner, each with what differs."""
        if self._token_ids_T is None:
            group = await self._edge.engines.sample(self._prompt, self._sampling)
            self._token_ids_T = group.completions[0].token_ids_T
        timeout_s, token_ids_T = self._edge.settings.timeout_s, self._token_ids_T
        expected_T, seen = await asyncio.gather(
            self._edge.learner.everywhere(LearnerRank.token_logprobs, timeout_s, self._prompt, token_ids_T),
            self._edge.engines.score(self._prompt, token_ids_T, timeout_s),
        )
        gaps = {engine: gap_between(expected_T, logprobs_T) for engine, logprobs_T in seen.items()}
        for engine, gap in gaps.items():
            logger.debug("version %d: %s is %.3g apart on average, %.3g at most", version, engine, gap.mean, gap.tail)
        errors = {engine: self._error(version, engine, gap) for engine, gap in gaps.items()}
        found = {engine: error for engine, error in errors.items() if not self._limits.admit(gaps[engine])}
        if self._learns and not found:
            mean, tail = (max(getattr(gap, part) for gap in gaps.values()) for part in ("mean", "tail"))
            self._limits, self._learns = learned_limits(self._edge.dtype, mean, tail), False
        return found

    def _error(self, version: int, engine: str, gap: Gap) -> WeightSyncError:
        return WeightSyncError(
            f"version {version}: {engine} gives log-prob {gap.engine_logprob:.6g} to token {gap.token} of the canary, "
            f"the learner {gap.learner_logprob:.6g}; their logits are up to {gap.tail:.3g} apart, {gap.mean:.3g} on "
            f"average, and weights.canary_tolerance allows {self._limits.tail:.3g} and {self._limits.mean:.3g}; the "
            "engine did not take the weights over, or the two compute differently (dtype, pixel limits)"
        )
