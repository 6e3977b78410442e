"""Into the output's dtype, and how much of the delta survives it.

A bfloat16 weight keeps 8 bits: a delta of rms 1e-4 on weights of rms 0.02 loses a third in nearest rounding, one of
1e-5 nearly all. Stochastic rounding keeps deltas right in the mean, at the price of noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RETENTION_WARNING = 0.9


@dataclass(frozen=True)
class Retention:
    """The stored delta (output - W_0) against the computed one: cosine and ratio of norms; 1 and 1 is lossless."""

    cosine: float
    norm_ratio: float


def retention(computed_sq: float, stored_sq: float, product: float) -> Retention | None:
    """From ||m||^2, ||stored||^2 and <m, stored>; None where m is zero. A delta that vanished has cosine 0."""
    if computed_sq <= 0:
        return None
    if stored_sq <= 0:
        return Retention(0.0, 0.0)
    return Retention(min(product / math.sqrt(computed_sq * stored_sq), 1.0), math.sqrt(stored_sq / computed_sq))


def to_output(weight: Tensor, out: Tensor, seed: int | None) -> Tensor:
    """A float32 block in the output's dtype, in `out`: to nearest, or stochastically (bfloat16 only) with a seed."""
    if seed is None or out.dtype != torch.bfloat16:
        return out.copy_(weight)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 1 << 16, weight.shape, generator=generator, dtype=torch.int32)
    # the lower 16 bits are the fraction of a bfloat16 step; adding uniform noise carries with that probability
    bits = (weight.view(torch.int32) + noise) & ~0xFFFF
    return out.copy_(bits.view(torch.float32))
