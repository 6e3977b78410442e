"""Adaptive Model Merging (Tiny-R1V, arXiv 2510.08987) of one matrix, without data. WUDI (2503.08099) is a special case.

    L(m) = sum_i w_i ||(m - tau_i) tau_i^T||_F^2 / ||tau_i||_F^2        WUDI has w_i = 1
    w_i  = alpha_i beta_i(t), rescaled so that mean(w) = 1
    alpha_i = K ||tau_i|| / sum_j ||tau_j||                             inherent importance, fixed [C in words]
    beta_i(t) = K softmax_i(cos(m_t, tau_i) / T), detached              compatibility, every step [C in words; form R]
    R(m) = sum_i ||g - <g,tau_i>/||tau_i||^2 tau_i||_F^2,  g = dL/dm    gradient-projection penalty [C in words; form R]
    minimise L + lambda R by Adam(0.9, 0.999, 1e-8); lambda = projection_weight * L_0/R_0, fixed at step 0 [R]

[C] is certain from the paper or its reviews, [R] is this project's reading: no code was published.
tau_i = W_i - W_0 is [out, in]. There is no autograd graph: see `forms.py` for the two ways to the exact gradient.

Two facts that a user should know. Adam's epsilon of 1e-8 is absolute, so even with the `relative` learning rate the
path depends a little on the deltas' scale once the gradient's entries come near 1e-8 (rms 1e-5 at 2048 inputs).
And for fixed weights R vanishes wherever g does: it changes the early-stopped path, not the minimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tinyr1v_ray.config.merge import AmmConfig
from tinyr1v_ray.errors import MergeError
from tinyr1v_ray.merging.costs import MatrixShape, choose_form, is_frozen
from tinyr1v_ray.merging.forms import Form, FormName, FrozenGramForm, GramForm, Penalty, ThinForm
from tinyr1v_ray.merging.spectral import flow_gain, gradient_flow
from tinyr1v_ray.merging.task_vectors import (
    LowRank,
    TaskVector,
    Vectors,
    dense,
    inner_products,
    non_zero,
    squared_norm,
    total,
)

__all__ = ["AmmConfig", "MergedLayer", "merge_task_vectors"]


@dataclass(frozen=True)
class MergedLayer:
    """The merged task vector of one matrix and how it came about."""

    task_vector: Tensor
    """m, [out, in]."""
    losses: tuple[float, ...]
    """L (without the penalty) before each step, so `losses[0]` is at m_0; (0.0,) where nothing was optimised."""
    weights_path: tuple[tuple[float, ...], ...] = ()
    """w_i before the first and before the last step, experts with a non-zero task vector only."""
    form: str = "none"
    """`gram`, `thin`, `spectral`, or `none` where nothing was optimised."""


def merge_task_vectors(
    task_vectors_K: Sequence[Tensor] | Vectors,
    config: AmmConfig,
    *,
    form: Literal["auto", "gram", "thin"] = "auto",
    solver: Literal["adam", "spectral"] = "adam",
    flow_time: float = 10.0,
) -> MergedLayer:
    """Merge the task vectors of one matrix.

    All-zero task vectors are dropped first. None left gives zero; one left gives that vector.
    `flow_time` is of the spectral solver alone (see `spectral.flow_gain`).
    Raises MergeError when there is no task vector, or they are not matrices of one shape, or not finite.
    """
    _check(task_vectors_K)
    dtype = getattr(torch, config.dtype)
    if isinstance(task_vectors_K, Tensor):
        given: Vectors = task_vectors_K.to(dtype)
    else:
        given = [vector.to(dtype) for vector in task_vectors_K]
    vectors_K = non_zero(given)
    if len(vectors_K) == 0:
        return MergedLayer(given[0].new_zeros(*given[0].shape), (0.0,))
    if len(vectors_K) == 1:
        return MergedLayer(dense(vectors_K[0]).clone(), (0.0,), ((1.0,), (1.0,)))
    if not isinstance(vectors_K, Tensor) and not any(isinstance(vector, LowRank) for vector in vectors_K):
        vectors_K = torch.stack([dense(vector) for vector in vectors_K])
    if solver == "spectral":
        return _merge_spectral(vectors_K, config, flow_time)
    return _merge_adam(vectors_K, config, form)


def _check(vectors_K: Sequence[Tensor] | Vectors) -> None:
    if len(vectors_K) == 0:
        raise MergeError("no task vector was given; a merge needs at least one expert; pass one or more")
    shapes = {tuple(vector.shape) for vector in vectors_K}
    if len(shapes) > 1 or len(next(iter(shapes))) != 2:
        raise MergeError(
            f"task vectors have the shapes {sorted(shapes)}; they must be matrices of one shape; check them"
        )
    for index, vector in enumerate(vectors_K):
        parts = (vector.left, vector.right) if isinstance(vector, LowRank) else (vector,)
        if not all(bool(torch.isfinite(part).all()) for part in parts):
            raise MergeError(f"task vector {index} holds NaN or Inf; all entries must be finite; check that expert")


class WeightRule:
    """w(t) from alpha and the cosines cos(m_t, tau_i)."""

    def __init__(self, squared_norms_K: Tensor, config: AmmConfig) -> None:
        self._config = config
        self._norms_K = squared_norms_K.sqrt()
        powers = {"norm": self._norms_K, "squared_norm": squared_norms_K, "uniform": torch.ones_like(squared_norms_K)}
        importance = powers[config.importance]
        self._importance_K = importance / importance.sum()

    def __call__(self, inner_products_K: Tensor, merged: Tensor) -> Tensor:
        """w_i, mean 1. Where m is zero every cosine is 0; where every beta is 0 alpha alone decides."""
        num = len(inner_products_K)
        weights = self._importance_K
        if self._config.compatibility != "none":
            scale = torch.linalg.vector_norm(merged) * self._norms_K
            cosine_K = torch.where(scale > 0, inner_products_K / scale, torch.zeros_like(scale))
            weights = weights * self._compatibility(cosine_K)
        return num * weights / weights.sum()

    def _compatibility(self, cosine_K: Tensor) -> Tensor:
        if self._config.compatibility == "softmax":
            return torch.softmax(cosine_K / self._config.temperature, 0)
        beta_K = ((1 + cosine_K) / 2).clamp_min(0)  # rounding may put a cosine below -1
        return torch.where(beta_K.sum() > 0, beta_K, torch.ones_like(beta_K))


def _penalty(vectors_K: Sequence[TaskVector] | Tensor, squared_norms_K: Tensor, config: AmmConfig) -> Penalty | None:
    if config.projection == "none" or config.projection_weight == 0:
        return None
    if config.projection == "per_expert":
        return Penalty(float(len(squared_norms_K)), torch.diag(1 / squared_norms_K))
    return Penalty(1.0, torch.linalg.pinv(inner_products(vectors_K), hermitian=True))


def _initial(vectors_K: Vectors, config: AmmConfig) -> Tensor:
    merged = total(vectors_K)
    return merged.div_(len(vectors_K)) if config.initial == "mean" else merged


def _merge_adam(vectors_K: Vectors, config: AmmConfig, form: Literal["auto", "gram", "thin"]) -> MergedLayer:
    squared_norms_K = torch.stack([squared_norm(vector) for vector in vectors_K])
    rule = WeightRule(squared_norms_K, config)
    penalty = _penalty(vectors_K, squared_norms_K, config)
    merged = _initial(vectors_K, config)
    rows, columns = merged.shape
    ranks_K = tuple(v.left.shape[1] if isinstance(v, LowRank) else None for v in vectors_K)
    chosen: FormName = choose_form(MatrixShape(rows, columns, ranks_K), config) if form == "auto" else form
    rate = config.learning_rate
    if config.learning_rate_mode == "relative":
        rate *= float((squared_norms_K.sum() / (len(vectors_K) * rows * columns)).sqrt())
    optimiser = _Adam(merged, rate)
    if chosen == "gram" and is_frozen(config):
        return _descend_frozen(vectors_K, squared_norms_K, rule, optimiser, config)
    computation: Form = (
        GramForm(vectors_K, 1 / squared_norms_K)
        if chosen == "gram"
        else ThinForm(vectors_K, 1 / squared_norms_K, penalty is not None)
    )
    losses, path = [], []
    strength = None
    for _ in range(config.steps):
        weights_K = rule(computation.observe(merged), merged)
        if penalty is None:
            gradient, loss = computation.gradient(weights_K)
        else:
            gradient, loss, strength = computation.penalised_gradient(
                weights_K, penalty, strength, config.projection_weight
            )
        optimiser.step(gradient)
        losses.append(loss)
        path.append(weights_K)
    return MergedLayer(merged, _floats(losses), (_floats(path[0]), _floats(path[-1])), chosen)


def _descend_frozen(
    vectors_K: Vectors, squared_norms_K: Tensor, rule: WeightRule, optimiser: _Adam, config: AmmConfig
) -> MergedLayer:
    """Weights that never change and no penalty (WUDI): one product per step."""
    merged = optimiser.merged
    weights_K = rule(squared_norms_K, merged)
    computation = FrozenGramForm(vectors_K, weights_K / squared_norms_K)
    losses = []
    for _ in range(config.steps):
        gradient, loss = computation.at(merged)
        optimiser.step(gradient)
        losses.append(loss)
    return MergedLayer(merged, _floats(losses), (_floats(weights_K),) * 2, "gram")


def _merge_spectral(vectors_K: Vectors, config: AmmConfig, flow_time: float) -> MergedLayer:
    """Gradient flow of L from m_0 with the weights of step 0; R has no part in it."""
    if config.projection != "none":
        raise MergeError(
            f"projection is {config.projection} with the spectral solver; its closed form has no penalty; "
            "set projection to none"
        )
    squared_norms_K = torch.stack([squared_norm(vector) for vector in vectors_K])
    merged = _initial(vectors_K, config)
    flat = [(dense(vector) * merged).sum() for vector in vectors_K]
    weights_K = WeightRule(squared_norms_K, config)(torch.stack(flat), merged)
    result, losses = gradient_flow(vectors_K, merged, weights_K / squared_norms_K, flow_gain(flow_time))
    return MergedLayer(result, losses, (_floats(weights_K),) * 2, "spectral")


class _Adam:
    """torch's fused Adam(0.9, 0.999, 1e-8) on one tensor in place, fed with a gradient: no autograd is involved.

    The kernel of `torch.optim.Adam(fused=True)` is called as that class calls it, but for the class's first step, which
    loads the compiler: a second in every process, more than most matrices take.
    """

    def __init__(self, merged: Tensor, rate: float) -> None:
        self.merged = merged
        self._rate = rate
        self._mean, self._square = torch.zeros_like(merged), torch.zeros_like(merged)
        self._count = torch.zeros((), dtype=torch.float32, device=merged.device)

    def step(self, gradient: Tensor) -> None:
        self._count += 1
        torch._fused_adam_(
            [self.merged], [gradient], [self._mean], [self._square], [], [self._count],
            lr=self._rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip


def _floats(values: Sequence[Tensor] | Tensor) -> tuple[float, ...]:
    stacked = values if isinstance(values, Tensor) else torch.stack(list(values))
    return tuple(stacked.double().tolist())
