"""Task vectors tau_i = W_i - W_0: dense, or the low-rank product that a LoRA adapter stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """tau = left @ right with left [out, rank] (the adapter's B times its scaling) and right [rank, in] (its A).

    Worked example: rank 16 at 2048 x 11008 holds 0.2 M numbers where the dense vector holds 22.5 M.
    """

    left: Tensor
    right: Tensor

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.left.shape[0], self.right.shape[1]))

    @property
    def dtype(self) -> torch.dtype:
        return self.left.dtype

    @property
    def device(self) -> torch.device:
        return self.left.device

    def dense(self) -> Tensor:
        """The product, [out, in]."""
        return self.left @ self.right

    def new_zeros(self, *shape: int) -> Tensor:
        return self.left.new_zeros(*shape)

    def to(self, dtype: torch.dtype) -> LowRank:
        return LowRank(self.left.to(dtype), self.right.to(dtype))


TaskVector: TypeAlias = Tensor | LowRank

Vectors: TypeAlias = Tensor | Sequence[TaskVector]
"""K task vectors: one tensor [K, out, in], which spares a copy, or a sequence in which low-rank ones may be mixed."""


def stacked(vectors_K: Vectors) -> Tensor:
    """[K, out, in]; the same memory where that is what was given."""
    if isinstance(vectors_K, Tensor):
        return vectors_K
    return torch.stack([dense(vector) for vector in vectors_K])


def non_zero(vectors_K: Vectors) -> Vectors:
    """Without the all-zero ones; the same object where there is none."""
    keep = [index for index, vector in enumerate(vectors_K) if not is_zero(vector)]
    if len(keep) == len(vectors_K):
        return vectors_K
    return vectors_K[keep] if isinstance(vectors_K, Tensor) else [vectors_K[index] for index in keep]


def dense(vector: TaskVector) -> Tensor:
    """The task vector as a tensor."""
    return vector.dense() if isinstance(vector, LowRank) else vector


def squared_norm(vector: TaskVector) -> Tensor:
    """||tau||^2, 0-dim; in low rank tr((L^T L)(R R^T)), without the product."""
    if isinstance(vector, LowRank):
        return ((vector.left.T @ vector.left) * (vector.right @ vector.right.T)).sum()
    flat = vector.reshape(-1)
    return torch.dot(flat, flat)


def inner_product(first: TaskVector, second: TaskVector) -> Tensor:
    """<tau_i, tau_j>, 0-dim."""
    if isinstance(first, LowRank) and isinstance(second, LowRank):
        return ((first.left.T @ second.left) * (first.right @ second.right.T)).sum()
    if isinstance(second, LowRank):
        first, second = second, first
    if isinstance(first, LowRank):
        return ((dense(second) @ first.right.T) * first.left).sum()
    return torch.dot(first.reshape(-1), dense(second).reshape(-1))


def inner_products(vectors_K: Vectors) -> Tensor:
    """All <tau_i, tau_j>, [K, K]."""
    table = [[inner_product(a, b) for b in vectors_K[: i + 1]] for i, a in enumerate(vectors_K)]
    lower = torch.stack([torch.stack([*row, *row[:1] * (len(vectors_K) - len(row))]) for row in table]).tril()
    return lower + lower.tril(-1).T


def is_zero(vector: TaskVector) -> bool:
    """Whether ||tau||^2, which every method divides by, is zero in the vector's own arithmetic.

    So is a LoRA adapter straight from its initialisation (B = 0), and a vector so small that its squares underflow.
    """
    return not bool(squared_norm(vector) > 0)


def total(vectors_K: Vectors) -> Tensor:
    """sum_i tau_i as a fresh tensor."""
    result = dense(vectors_K[0]).clone()
    for vector in vectors_K[1:]:
        if isinstance(vector, LowRank):
            result.addmm_(vector.left, vector.right)
        else:
            result.add_(vector)
    return result
