"""The merges that AMM is compared with; `methods.py` makes them rows of the one table. WUDI is a setting of `amm.py`.

average          mean of the task vectors
task_arithmetic  scale * sum (arXiv 2212.04089)
ties             keep the largest entries of each, elect a sign, average what agrees (arXiv 2306.01708)
dare             drop entries at random, rescale, then scale * sum (arXiv 2311.03099)
iso_c            the sum with all singular values set to their mean (arXiv 2502.04959), matrices only
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tinyr1v_ray.merging.blocks import Blocks
from tinyr1v_ray.merging.task_vectors import Vectors, total

_LOW_BITS = 16
_MAGNITUDE = 0x7FFFFFFF


def iso_c(task_vectors_K: Sequence[Tensor] | Vectors) -> Tensor:
    """mean(sigma) U V^T of the sum's singular value decomposition. Zero stays zero."""
    summed = total(task_vectors_K)
    if not bool(summed.any()):
        return summed
    left, values, right = torch.linalg.svd(summed, full_matrices=False)
    return (left * values.mean()) @ right


def drop_and_rescale(block_KN: Tensor, drop: float, seeds_K: Sequence[int]) -> Tensor:
    """DARE's sum: each entry of each expert survives with probability 1 - drop and is then divided by it."""
    kept = 1 - drop
    result = block_KN.new_zeros(block_KN.shape[1])
    for values, seed in zip(block_KN, seeds_K, strict=True):
        mask = torch.rand(len(values), generator=torch.Generator().manual_seed(seed)) < kept
        result.addcmul_(values, mask.to(values.dtype), value=1 / kept)
    return result


def elect_and_average(block_KN: Tensor, thresholds_K: Sequence[float]) -> Tensor:
    """TIES after trimming: the sign with the larger mass wins; the mean of the surviving entries that have it."""
    # hardshrink keeps what is strictly above its limit, so the limit is the float just below the threshold
    rows = [
        torch.nn.functional.hardshrink(row, float(np.nextafter(np.float32(threshold), np.float32(0))))
        for row, threshold in zip(block_KN, thresholds_K, strict=True)
    ]
    elected = rows[0].clone()
    for row in rows[1:]:
        elected.add_(row)
    result, count = torch.zeros_like(elected), torch.zeros_like(elected)
    product = torch.empty_like(elected)
    for row in rows:
        agrees = torch.mul(row, elected.sign(), out=product).gt_(0)
        count.add_(agrees)
        result.addcmul_(row, agrees)
    return result.div_(count.clamp_(min=1))


def magnitudes_at_densities(blocks: Blocks, densities: Sequence[float]) -> list[list[float]]:
    """Per density and expert the exact k-th largest |entry|, k = max(1, floor(density n)); equal ones are all kept.

    Radix selection on the float's bits, whose order is that of magnitudes: one pass counts the upper half, one the
    lower half within the bins found, so a tensor of any size and any number of densities need two passes and small
    tables.
    """
    upper: list[Tensor] = []
    numel = 0
    for block in blocks():
        numel += block.shape[1]
        counts = [
            torch.bincount((row.view(torch.int32) & _MAGNITUDE).bitwise_right_shift_(_LOW_BITS), minlength=1 << 15)
            for row in block
        ]
        upper = [a + b for a, b in zip(upper, counts, strict=True)] if upper else counts
    found = [[_bin_of(counts, max(1, int(density * numel))) for counts in upper] for density in densities]
    bins_K = [{own[expert][0] for own in found} for expert in range(len(upper))]
    lower = [{chosen: torch.zeros(1 << _LOW_BITS, dtype=torch.int64) for chosen in bins} for bins in bins_K]
    for block in blocks():
        for row, tables in zip(block, lower, strict=True):
            for chosen, table in tables.items():
                # inside the bin the upper bits cancel; everything else becomes at least 2^16 and is counted apart
                bits = (row.view(torch.int32) & _MAGNITUDE).bitwise_xor_(chosen << _LOW_BITS).clamp_(max=1 << _LOW_BITS)
                table += torch.bincount(bits, minlength=(1 << _LOW_BITS) + 1)[:-1]
    return [[_magnitude(place, tables) for place, tables in zip(own, lower, strict=True)] for own in found]


def _magnitude(place: tuple[int, int], tables: Mapping[int, Tensor]) -> float:
    """The float32 at a place (bin, rank within it); at least the smallest normal one, so that zeros are never kept."""
    chosen, left = place
    low, _ = _bin_of(tables[chosen], left)
    bits = torch.tensor([(chosen << _LOW_BITS) | low], dtype=torch.int32)
    return max(float(bits.view(torch.float32)), float(torch.finfo(torch.float32).tiny))


def _bin_of(counts: Tensor, keep: int) -> tuple[int, int]:
    """(bin that holds the keep-th largest, how many of that bin's largest are still to be kept)."""
    from_above = counts.flip(0).cumsum(0)
    position = int(torch.searchsorted(from_above, torch.tensor(keep)))
    before = int(from_above[position - 1]) if position else 0
    return len(counts) - 1 - position, keep - before


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any parts, equal on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
