"""Experts with planted overlap: what a merge has to reconcile, turned up at will, one tensor at a time.

Specialists trained apart are almost orthogonal, so every merge of them is nearly a sum. From the task vectors of real
ones, u_i = tau_i / ||tau_i||, and that of a model trained for all of them, u_s, this makes experts of any cosine c:

    q_1 .. q_K, q_s  the orthonormal vectors nearest to u_1 .. u_K, u_s (Loewdin)
    tau'_i = n_i (sqrt(c) sigma_i q_s + sqrt(1 - c) q_i),  so that cos(tau'_i, tau'_j) = c

sigma_i flips the sign of a share `opposed` of the entries, drawn for each expert anew: the cosine falls to
c (1 - 2 opposed)^2 while as much is shared. n_i is ||tau_i||, or with a `norm_ratio` r falls from their mean to 1/r of
it over the experts in order. With a `rank`, all tau'_i of a matrix are projected on one row space of that many
dimensions, the leading right-singular ones of them stacked, and keep their norms.

An expert without a task vector here stays without; where the shared model has none, nothing is shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tinyr1v_ray.config.merge import OverlapCase
from tinyr1v_ray.merging.baselines import seed_of


def plant(vectors_K: Sequence[Tensor], shared: Tensor, overlap: float, case: OverlapCase, name: str) -> list[Tensor]:
    """tau'_i of one tensor, in the arithmetic of `vectors_K`; `overlap` is c, `name` seeds the flipped signs."""
    wide_K = [vector.double() for vector in vectors_K]
    norms_K = [float(vector.norm()) for vector in wide_K]
    moving = [index for index, norm in enumerate(norms_K) if norm > 0]
    if not moving:
        return [vector.clone() for vector in vectors_K]
    norms_K = _norms(norms_K, case.norm_ratio)
    is_shared = bool(shared.any())
    basis = _orthonormal([wide_K[index] for index in moving] + [shared.double()] * is_shared)
    amount = overlap if is_shared else 0.0
    planted = [torch.zeros_like(vector) for vector in wide_K]
    for place, index in enumerate(moving):
        planted[index] = math.sqrt(1 - amount) * basis[place]
        if is_shared:
            planted[index] += math.sqrt(amount) * _flipped(basis[-1], case.opposed, name, index)
    if case.rank is not None and planted[0].ndim == 2:
        planted = _in_one_subspace(planted, case.rank)
    return [
        _of_norm(vector, norm).to(like.dtype) for vector, norm, like in zip(planted, norms_K, vectors_K, strict=True)
    ]


def _norms(norms_K: Sequence[float], ratio: float) -> list[float]:
    """n_i; of 3 experts and a ratio of 100, 1, 1/10 and 1/100 of the mean."""
    if ratio == 1:
        return list(norms_K)
    mean, last = sum(norms_K) / len(norms_K), max(1, len(norms_K) - 1)
    return [mean * ratio ** (-place / last) for place in range(len(norms_K))]


def _orthonormal(vectors: Sequence[Tensor]) -> list[Tensor]:
    """G^(-1/2) applied to the unit vectors with the Gram matrix G: of all orthonormal sets the nearest to them."""
    units = torch.stack([vector / vector.norm() for vector in vectors])
    flat = units.flatten(1)
    values, rotation = torch.linalg.eigh(flat @ flat.T)
    root = (rotation * values.clamp(min=1e-12).rsqrt()) @ rotation.T
    return list((root @ flat).view_as(units))


def _flipped(vector: Tensor, share: float, name: str, expert: int) -> Tensor:
    """With the sign of a share of its entries turned."""
    generator = torch.Generator().manual_seed(seed_of("opposed", name, expert))
    return torch.where(torch.rand(vector.shape, generator=generator) < share, -vector, vector)


def _in_one_subspace(vectors: Sequence[Tensor], rank: int) -> list[Tensor]:
    stacked = torch.cat(list(vectors))
    rows = torch.linalg.svd(stacked, full_matrices=False).Vh[:rank]
    return [(vector @ rows.T) @ rows for vector in vectors]


def _of_norm(vector: Tensor, norm: float) -> Tensor:
    length = float(vector.norm())
    return vector * (norm / length) if length > 0 else vector
