"""ResMerge: residual-based spectral merging (arXiv 2606.02252) of one matrix, for reinforcement-learned experts.

tau_i = H_i + R_i: the head H_i is the part of the largest `head_rank` singular values, R_i the residual. Heads are
strong and conflict; residuals are spread out and agree on more. So the residuals make a backbone A, and of the heads
only as much is added as they agree on:

    q = sum q_i / ||sum q_i||,  q_i = R_i / ||R_i||        consensus on the Frobenius sphere
    c = mean_i cos(q_i, q),  s = mean_{i<j} cos(q_i, q_j)   coherence
    beta = beta_max - (beta_max - beta_min) ((c + 1)/2 + (s + 1)/2) / 2
    A = c^beta mean_i ||R_i|| q;  the mean of R_i where c <= 1/sqrt(N), as random directions have
    C = head_budget S ||A|| mean_i H_i / ||mean_i H_i||,  S = mean_{i<j} max(0, cos(H_i, H_j))
    m = A + C

Definitions and defaults (1, 0.2, 0.7 to 1.0) as in the authors' README and code; they count every layer that is neither
attention nor feed-forward as incoherent, of which the linear layers merged here have none. All-zero task vectors are
dropped, one alone is itself [R: theirs would shorten its head].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tinyr1v_ray.merging.costs import Cost, MatrixShape, one_pass_cost
from tinyr1v_ray.merging.task_vectors import Vectors, non_zero, stacked


def resmerge(
    vectors_K: Vectors, head_rank: int = 1, head_budget: float = 0.2, beta: tuple[float, float] = (0.7, 1.0)
) -> Tensor:
    """m [out, in]; `beta` is (beta_min, beta_max)."""
    moving = non_zero(vectors_K)
    if len(moving) == 0:
        return vectors_K[0].new_zeros(*vectors_K[0].shape)
    vectors = stacked(moving)
    if len(vectors) == 1:
        return vectors[0].clone()
    heads = torch.stack([spectral_head(vector, head_rank) for vector in vectors])
    backbone = consensus(_above_rounding(vectors - heads, vectors), beta)
    mean_head = heads.mean(0)
    length = torch.linalg.vector_norm(mean_head)
    if not bool(length > 0):
        return backbone
    agreement = _pairwise_cosines(heads).clamp(min=0).mean()
    return backbone + mean_head * (head_budget * agreement * torch.linalg.vector_norm(backbone) / length)


def resmerge_cost(shape: MatrixShape) -> Cost:
    """Of each expert one Gram matrix of its smaller side and its eigenvectors (about 9 n^3 flops, counted threefold for
    their speed); task vectors, heads and residuals at once."""
    side, other = sorted((shape.rows, shape.columns))
    num = len(shape.ranks_K)
    flops = num * (2 * other * side**2 + 27 * side**3 + 2 * num * shape.numel)
    return one_pass_cost(flops, 4 * shape.numel * (3 * num + 4) + 16 * side**2, 4 * shape.numel * 12 * num)


def spectral_head(vector: Tensor, rank: int) -> Tensor:
    """The best approximation of this rank, from the eigenvectors of the smaller Gram matrix: many times faster than an
    SVD, and as exact, since a head is a projection on them."""
    rows, columns = vector.shape
    if rows > columns:
        return spectral_head(vector.T, rank).T
    basis = torch.linalg.eigh(vector @ vector.T).eigenvectors[:, -rank:]
    return basis @ (basis.T @ vector)


def _above_rounding(residuals: Tensor, vectors: Tensor) -> Tensor:
    """Zeros for a residual that is the rounding error of a matrix of the head's rank: it has no direction."""
    norms_K, whole_K = (torch.linalg.vector_norm(each, dim=(1, 2)) for each in (residuals, vectors))
    return residuals.mul_((norms_K > 100 * torch.finfo(vectors.dtype).eps * whole_K)[:, None, None])


def consensus(residuals: Tensor, beta: tuple[float, float]) -> Tensor:
    """A, of residuals [K, out, in]; c and s follow from ||sum q_i|| alone. An all-zero residual has q_i = 0."""
    norms_K = torch.linalg.vector_norm(residuals, dim=(1, 2))
    present = norms_K > 0
    if not bool(present.any()):
        return torch.zeros_like(residuals[0])
    summed = torch.tensordot(torch.where(present, 1 / norms_K, 0.0), residuals, 1)
    length, num = float(torch.linalg.vector_norm(summed)), len(residuals)
    coherence = min(1.0, length / num)
    if num == 1 or coherence <= 1 / math.sqrt(num):
        return residuals.mean(0)
    similarity = (length**2 - int(present.sum())) / (num * (num - 1))
    score = ((coherence + 1) / 2 + (similarity + 1) / 2) / 2
    exponent = beta[1] - (beta[1] - beta[0]) * min(1.0, score)
    return summed * (coherence**exponent * float(norms_K.mean()) / length)


def _pairwise_cosines(vectors: Tensor) -> Tensor:
    """cos of every pair i < j of vectors [K, out, in], all non-zero; [K (K - 1) / 2]."""
    flat = vectors.flatten(1)
    norms_K = torch.linalg.vector_norm(flat, dim=1)
    first, second = torch.triu_indices(len(flat), len(flat), 1)
    return (flat @ flat.T / torch.outer(norms_K, norms_K))[first, second]
