"""SWUDI: the spectral closed form of WUDI's objective (arXiv 2606.07289), one matrix.

    L(m) = sum_i c_i ||(m - tau_i) tau_i^T||_F^2,  c_i = 1 / ||tau_i||_F^2
    C = sum_i c_i tau_i^T tau_i = V diag(lambda) V^T,  D = sum_i c_i tau_i tau_i^T tau_i,  m_0 = sum_i tau_i
    m = m_0 + (D - m_0 C) V diag(f / lambda) V^T
    f = 1 - e^(-lambda t) for the `keep` share of the `in` directions with the largest lambda, 0 for the others

The soft filter is gradient flow stopped at time t; the cut leaves m_0 in the directions in which hardly any expert
moves, where the exact minimiser amplifies noise. Defaults as the authors' code advises for fully fine-tuned language
models: t = 300 and keep = 0.85. t is absolute, as theirs: tr(C) = N whatever the task vectors' size.
All-zero task vectors are dropped; one alone is itself (D = m_0 C).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tinyr1v_ray.merging.amm import MergedLayer
from tinyr1v_ray.merging.spectral import gradient_flow, positive
from tinyr1v_ray.merging.task_vectors import Vectors, non_zero, squared_norm, total


def swudi(vectors_K: Vectors, flow_time: float = 300.0, keep: float = 0.85) -> MergedLayer:
    """m [out, in] with L at m_0 and at m."""
    moving = non_zero(vectors_K)
    if len(moving) == 0:
        return MergedLayer(vectors_K[0].new_zeros(*vectors_K[0].shape), (0.0,))
    scaled_K = 1 / torch.stack([squared_norm(vector) for vector in moving])
    merged, losses = gradient_flow(
        moving, total(moving), scaled_K, lambda values, columns: soft_and_hard(values, columns, flow_time, keep)
    )
    return MergedLayer(merged, losses, ((1.0,) * len(moving),) * 2, "spectral")


def soft_and_hard(values: Tensor, columns: int, flow_time: float, keep: float) -> Tensor:
    """f / lambda of ascending eigenvalues: all `columns` of C, or those that the smaller Gram matrix has (the others
    are 0 and the smallest)."""
    safe, is_positive = positive(values)
    gain = torch.where(is_positive, -torch.expm1(-safe * flow_time) / safe, flow_time)
    gain[: max(0, len(values) - math.ceil(keep * columns))] = 0
    return gain
