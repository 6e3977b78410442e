"""The closed form of gradient flow on L: one eigen-decomposition instead of hundreds of steps.

dm/dt = -g = -2(mC - D) from m_0 has the solution m(t) = m_0 + (D - m_0 C) V diag((1 - e^(-2 lambda t)) / lambda) V^T
with C = V diag(lambda) V^T. Adam has no closed form: this is another solver, not a faster Adam. Another gain in place
of (1 - e^(-2 lambda t)) / lambda makes another method (`swudi.py`).

C has rank at most p, the number of stacked right factors, so the smaller of C [in, in] and Y Y^T [p, p], C = Y^T Y, is
decomposed: with D - m_0 C = E Y and Y Y^T = U diag(lambda) U^T the step is E U diag(gain) U^T Y, in which nothing is
divided by a small number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tinyr1v_ray.merging.forms import FrozenGramForm
from tinyr1v_ray.merging.task_vectors import LowRank, TaskVector, Vectors, dense

Gain = Callable[[Tensor, int], Tensor]
"""From ascending eigenvalues of C, or those of its smaller Gram matrix, and the number of all of C's: the gain of each
direction, the share of its distance to the minimiser that is closed, over the eigenvalue."""


def gradient_flow(
    vectors_K: Vectors, initial: Tensor, scaled_K: Tensor, gain: Gain
) -> tuple[Tensor, tuple[float, float]]:
    """(m, (L(m_0), L(m))). `scaled_K` is w_i/||tau_i||^2."""
    columns = initial.shape[1]
    thin = sum(_thin_size(vector) for vector in vectors_K)
    if columns <= thin:
        return _on_columns(vectors_K, initial, scaled_K, gain)
    return _on_factors(vectors_K, initial, scaled_K, gain)


def _on_columns(
    vectors_K: Vectors, initial: Tensor, scaled_K: Tensor, gain: Gain
) -> tuple[Tensor, tuple[float, float]]:
    quadratic = FrozenGramForm(vectors_K, scaled_K)
    first_gradient, first_loss = quadratic.at(initial)
    values, basis = torch.linalg.eigh(quadratic.curvature)
    factor = gain(values, len(values)) / -2
    merged = initial + ((first_gradient @ basis) * factor) @ basis.T
    first = float(first_loss)
    return merged, (first, float(quadratic.at(merged)[1]))


def _on_factors(
    vectors_K: Vectors, initial: Tensor, scaled_K: Tensor, gain: Gain
) -> tuple[Tensor, tuple[float, float]]:
    roots = torch.cat([scale.sqrt() * _root(vector) for scale, vector in zip(scaled_K, vectors_K, strict=True)])
    values, basis = torch.linalg.eigh(roots @ roots.T)
    residual, first = _residual(vectors_K, initial, scaled_K)
    step = ((residual @ basis) * gain(values, initial.shape[1])) @ basis.T
    merged = initial + step @ roots
    return merged, (first, _residual(vectors_K, merged, scaled_K)[1])


def _residual(vectors_K: Vectors, merged: Tensor, scaled_K: Tensor) -> tuple[Tensor, float]:
    """(E [out, p] with D - mC = E Y, L(m)): E's block i is sqrt(w_i c_i) (tau_i - m) root_i^T."""
    blocks = []
    for scale, vector in zip(scaled_K, vectors_K, strict=True):
        blocks.append(scale.sqrt() * (dense(vector) - merged) @ _root(vector).T)
    stacked = torch.cat(blocks, dim=1)
    return stacked, float(stacked.square().sum())


def _root(vector: TaskVector) -> Tensor:
    """Y_i with Y_i^T Y_i = tau_i^T tau_i: tau_i itself, or R A for a LoRA adapter B A with B = Q R."""
    if isinstance(vector, LowRank):
        triangle = torch.linalg.qr(vector.left, mode="r").R
        return triangle @ vector.right
    return vector


def _thin_size(vector: TaskVector) -> int:
    return min(vector.left.shape) if isinstance(vector, LowRank) else vector.shape[0]


def flow_gain(flow_time: float) -> Gain:
    """(1 - e^(-2 lambda t)) / lambda, 2t where lambda is (numerically) zero.

    `flow_time` is t in units of 1 / (2 mean non-zero eigenvalue of C), so it means the same for every shape:
    a direction of the mean eigenvalue has closed 1 - e^-flow_time of its distance.
    """

    def gain(values: Tensor, columns: int) -> Tensor:
        safe, is_positive = positive(values)
        mean = safe[is_positive].mean() if bool(is_positive.any()) else values.new_ones(())
        time = flow_time / (2 * mean)
        return torch.where(is_positive, -torch.expm1(-2 * safe * time) / safe, 2 * time)

    return gain


def positive(values: Tensor) -> tuple[Tensor, Tensor]:
    """(eigenvalues with 1 in place of those that are zero up to rounding, where they are not)."""
    floor = values.max().clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    is_positive = values > floor
    return torch.where(is_positive, values, torch.ones_like(values)), is_positive
