"""Adapters whose initialisation moves a part of W_0 into the factors: PiSSA (arXiv 2404.02948), OLoRA (2406.01775).

Training starts from W_0 - T with B A = T / s, so that the adapter's weight is W_0 - T + s B A and its task vector
s B A - T. peft stores s, A and B alone and derives T from W_0 again when it loads the adapter; so does this file. In
both cases T = c U U^T W_0 with U [out, r] orthonormal: the first r left-singular vectors and c = 1 for PiSSA, the Q of
the first r columns of W_0 and c = s for OLoRA.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tinyr1v_ray.merging.task_vectors import LowRank

Initialisation = Literal["pissa", "olora"]


def without_start(factors: LowRank, start: Initialisation, weight: Tensor, scaling: float) -> LowRank:
    """s B A - T in rank 2r and in the factors' dtype, from s B [out, r], A [r, in] and W_0 [out, in].

    Both terms are far larger than their difference. So they are subtracted in float64, in an orthonormal basis of the
    rows of A and U^T W_0: what is computed from the factors later does not cancel.
    """
    wide = weight.double()
    rank = factors.right.shape[0]
    basis = torch.linalg.qr(wide[:, :rank]).Q if start == "olora" else _left_singular(wide, rank)
    share = 1.0 if start == "pissa" else scaling
    left = torch.cat([factors.left.double(), -share * basis], dim=1)
    right = torch.cat([factors.right.double(), basis.T @ wide], dim=0)
    rows, mixing = torch.linalg.qr(right.T)
    return LowRank((left @ mixing.T).to(factors.dtype), rows.T.contiguous().to(factors.dtype))


def _left_singular(weight: Tensor, rank: int) -> Tensor:
    """An orthonormal basis of the first `rank` left-singular vectors' span, from the eigenvectors of the smaller Gram
    matrix: many times faster than an SVD."""
    rows, columns = weight.shape
    if rows <= columns:
        return torch.linalg.eigh(weight @ weight.T).eigenvectors[:, -rank:]
    return torch.linalg.qr(weight @ torch.linalg.eigh(weight.T @ weight).eigenvectors[:, -rank:]).Q


def start_cost(shape: tuple[int, ...], rank: int) -> tuple[int, int]:
    """(flops, bytes in memory) of `without_start`: Gram matrix, its eigenvectors (about 9 n^3), W_0 in float64."""
    side, other = sorted(shape)
    return 2 * other * side**2 + 9 * side**3, 8 * (2 * side * other + 4 * side**2 + 4 * rank * (side + other))
