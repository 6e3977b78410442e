"""The policy loss against numbers worked out by hand, scalar arithmetic without autograd, and its invariances."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinyr1v_ray.algorithms.policy_loss import SampledTokens, policy_loss, token_weights
from tinyr1v_ray.config.algorithm import AlgorithmSettings


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss_and_gradient(
    logprobs: Tensor, tokens: SampledTokens, **changes: Any
) -> tuple[float, list[float], dict[str, float]]:
    options = AlgorithmSettings(**{"kl_coefficient": 0.0, "importance_cap": 0.0, **changes})
    leaf = logprobs.clone().requires_grad_()
    loss, sums = policy_loss(leaf, tokens, options)
    loss.backward()
    assert leaf.grad is not None
    return loss.item(), leaf.grad.tolist(), {name: float(value) for name, value in sums.items()}


LN2 = math.log(2.0)


def test_first_step_is_the_plain_policy_gradient() -> None:
    """Ratio 1: loss -sum w A, gradient -w A. Two tokens, A = 2 and -1, w = 1/4: loss -1/4, gradient -1/2 and 1/4."""
    tokens = SampledTokens(tensor(-1.0, -2.0), tensor(2.0, -1.0), tensor(0.25, 0.25))
    loss, gradient, sums = loss_and_gradient(tensor(-1.5, -0.5), tokens)
    assert loss == pytest.approx(-0.25)
    assert gradient == pytest.approx([-0.5, 0.25])
    assert sums["clip_fraction"] == 0


CLIP_CASES = {
    # ratio, advantage -> surrogate, d surrogate / d logprob; low 0.2, high 0.3
    "inside": (1.1, 2.0, 2.2, 2.2),
    "above, good: cut at 1.3": (1.5, 2.0, 2.6, 0.0),
    "above, bad: not cut": (1.5, -2.0, -3.0, -3.0),
    "below, good: not cut": (0.5, 2.0, 1.0, 1.0),
    "below, bad: cut at 0.8": (0.5, -2.0, -1.6, 0.0),
    "between symmetric and asymmetric bound": (1.25, 1.0, 1.25, 1.25),
}


@pytest.mark.parametrize("case", CLIP_CASES)
def test_clip_is_pessimistic_and_asymmetric(case: str) -> None:
    ratio, advantage, surrogate, slope = CLIP_CASES[case]
    tokens = SampledTokens(tensor(-1.0), tensor(advantage), tensor(1.0), proximal_logprobs_T=tensor(-1.0))
    loss, gradient, sums = loss_and_gradient(tensor(-1.0 + math.log(ratio)), tokens)
    assert loss == pytest.approx(-surrogate)
    assert gradient == pytest.approx([-slope])
    assert sums["clip_fraction"] == (1 if slope == 0.0 else 0)


def test_k3_penalty_and_its_gradient() -> None:
    """pi_ref / pi = 2: k3 = 2 - 1 - ln 2 = 0.306853; d/dlogpi = 1 - 2 = -1. Advantage 0 leaves beta times these."""
    tokens = SampledTokens(tensor(-2.0), tensor(0.0), tensor(1.0), reference_logprobs_T=tensor(-2.0 + LN2))
    loss, gradient, sums = loss_and_gradient(tensor(-2.0), tokens, kl_coefficient=0.1)
    assert loss == pytest.approx(0.1 * (1.0 - LN2))
    assert gradient == pytest.approx([-0.1])
    assert sums["kl"] == pytest.approx(1.0 - LN2)


def test_importance_weight_is_truncated_and_detached() -> None:
    """pi_prox / pi_roll = 4 and 1/2 with cap 2: factors 2 and 1/2 on loss and gradient, nothing more."""
    tokens = SampledTokens(tensor(-3.0 - 2 * LN2, -3.0 + LN2), tensor(1.0, 1.0), tensor(1.0, 1.0))
    loss, gradient, sums = loss_and_gradient(tensor(-3.0, -3.0), tokens, importance_cap=2.0)
    assert loss == pytest.approx(-2.5)
    assert gradient == pytest.approx([-2.0, -0.5])
    assert sums["ratio_outside_share"] == 2
    assert sums["mismatch_kl"] == pytest.approx((4 - 1 - 2 * LN2) + (0.5 - 1 + LN2))


def test_mismatch_is_between_engine_and_learner_before_the_update() -> None:
    """With a fixed pi_prox the policy's own progress is no mismatch: pi_prox = pi_roll gives zero."""
    tokens = SampledTokens(tensor(-1.0), tensor(1.0), tensor(1.0), proximal_logprobs_T=tensor(-1.0))
    _, _, sums = loss_and_gradient(tensor(-0.5), tokens, importance_cap=2.0)
    assert sums["mismatch_kl"] == 0 and sums["ratio_outside_share"] == 0


def test_ratio_band_edges() -> None:
    """Ratios 0.89, 0.91, 1.09, 1.11: two of four outside [0.9, 1.1]."""
    ratios = np.log([0.89, 0.91, 1.09, 1.11])
    tokens = SampledTokens(tensor(0.0, 0.0, 0.0, 0.0), tensor(1, 1, 1, 1), tensor(1, 1, 1, 1))
    _, _, sums = loss_and_gradient(tensor(*ratios), tokens)
    assert sums["ratio_outside_share"] == 2 and sums["num_trained_tokens"] == 4


def test_tokens_of_weight_zero_count_nowhere() -> None:
    tokens = SampledTokens(tensor(-9.0), tensor(0.0), tensor(0.0), reference_logprobs_T=tensor(-5.0))
    loss, gradient, sums = loss_and_gradient(tensor(-1.0), tokens, kl_coefficient=1.0, importance_cap=2.0)
    assert loss == 0 and gradient == [0.0] and set(sums.values()) == {0.0}


def test_one_broken_token_does_not_make_the_loss_infinite() -> None:
    tokens = SampledTokens(tensor(-2000.0), tensor(1.0), tensor(1.0), reference_logprobs_T=tensor(0.0))
    loss, gradient, _ = loss_and_gradient(tensor(-1000.0), tokens, kl_coefficient=0.01, importance_cap=2.0)
    assert math.isfinite(loss) and math.isfinite(gradient[0])


def test_averages_by_hand() -> None:
    """Rows of 1 and 3 tokens with costs 1 and 2 a token, in a step of 8 usable tokens in 4 rows, max_tokens 10.

    token: (1 + 3 * 2) / 8. sequence: (1 + 2) / 4. constant: 7 / (4 * 10).
    """
    lengths, costs = np.array([1, 3]), np.array([1.0, 2.0])
    expected: dict[Literal["token", "sequence", "constant"], float] = {
        "token": 7 / 8,
        "sequence": 3 / 4,
        "constant": 7 / 40,
    }
    for average, cost in expected.items():
        weights = token_weights(lengths, 8, 4, average, 10)
        assert float((weights * lengths * costs).sum()) == pytest.approx(cost)


def slow_loss(row: list[float], new: float, options: AlgorithmSettings) -> float:
    """The definition for one token in scalar arithmetic: rollout, proximal, reference, advantage, weight."""
    rollout, proximal, reference, advantage, weight = row
    ratio = math.exp(new - proximal)
    low, high = 1 - options.clip_low, 1 + options.clip_high
    surrogate = min(ratio * advantage, max(low, min(high, ratio)) * advantage)
    cap = options.importance_cap
    correction = min(math.exp(proximal - rollout), cap) if cap else 1.0
    gap = reference - new
    return weight * (options.kl_coefficient * (math.exp(gap) - 1 - gap) - correction * surrogate)


LOGPROBS = st.floats(-6.0, 0.0)
ROWS = st.lists(
    st.tuples(LOGPROBS, LOGPROBS, LOGPROBS, LOGPROBS, st.floats(-3, 3), st.floats(0.01, 1)), min_size=1, max_size=8
)


@settings(max_examples=60)
@given(ROWS, st.sampled_from([0.0, 1.5]), st.sampled_from([0.0, 0.2]))
def test_value_and_gradient_are_those_of_the_definition(
    rows: list[tuple[float, ...]], cap: float, kl_coefficient: float
) -> None:
    """Loss by scalar arithmetic, gradient by central differences of it (away from the clip's kinks)."""
    options = AlgorithmSettings(kl_coefficient=kl_coefficient, importance_cap=cap)
    new, rollout, proximal, reference, advantage, weight = (tensor(*column) for column in zip(*rows, strict=True))
    tokens = SampledTokens(rollout, advantage, weight, proximal, reference)
    loss, gradient, _ = loss_and_gradient(new, tokens, kl_coefficient=kl_coefficient, importance_cap=cap)
    assert loss == pytest.approx(sum(slow_loss(list(row[1:]), row[0], options) for row in rows), rel=1e-9, abs=1e-12)
    step = 1e-6
    for row, slope in zip(rows, gradient, strict=True):
        ratio = math.exp(row[0] - row[2])
        if min(abs(ratio - 0.8), abs(ratio - 1.3)) > 1e-4:
            upper, lower = (slow_loss(list(row[1:]), row[0] + sign * step, options) for sign in (1, -1))
            assert slope == pytest.approx((upper - lower) / (2 * step), rel=1e-4, abs=1e-7)


@settings(max_examples=30)
@given(ROWS, st.integers(0, 8))
def test_parts_add_up_to_the_whole(rows: list[tuple[float, ...]], cut: int) -> None:
    """However a step is divided into micro-batches, losses and metric sums add up to the same."""
    columns = [tensor(*column) for column in zip(*rows, strict=True)]
    options = AlgorithmSettings(kl_coefficient=0.1)

    def part(where: slice) -> tuple[float, dict[str, float]]:
        new, rollout, proximal, reference, advantage, weight = (column[where] for column in columns)
        loss, sums = policy_loss(new, SampledTokens(rollout, advantage, weight, proximal, reference), options)
        return float(loss), {name: float(value) for name, value in sums.items()}

    (whole, sums), (first, left), (second, right) = part(slice(None)), part(slice(0, cut)), part(slice(cut, None))
    assert whole == pytest.approx(first + second, abs=1e-9)
    assert sums == pytest.approx({name: left[name] + right[name] for name in left}, abs=1e-9)
