"""RAM and RAM+: Reinforced Agent Merging (arXiv 2601.13572) of one tensor, entry by entry.

On-policy training moves few entries, and other ones in every expert; a mean would shrink what one expert alone has
learned. With S(e) the experts that changed entry e, |tau_i(e)| > threshold:

    m(e) = lambda_i tau_i(e)             where i alone changed it
    m(e) = mean over S(e) of tau_i(e)    where several did;  0 where none did
    lambda_i = 1 + rescale * min(rho_i, 1),  rho_i = entries that i shares / entries that i alone changed

RAM has rescale 0, RAM+ 0.2, as in the authors' code. They count rho_i over the whole model; here it is counted in each
tensor [R], so that a tensor can be merged without the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyr1v_ray.merging.blocks import Blocks


def merge_by_overlap(block_KN: Tensor, threshold: float, scales_K: Sequence[float]) -> Tensor:
    """m of one block [N]; `scales_K` is lambda.

    >>> block = torch.tensor([[0.5, 0.2, 0.0], [0.0, 0.4, 0.0]])
    >>> merge_by_overlap(block, 1e-5, [1.5, 1.0])
    tensor([0.7500, 0.3000, 0.0000])
    """
    changed_KN = block_KN.abs() > threshold
    count_N = changed_KN.sum(0)
    kept_KN = block_KN * changed_KN
    alone_N = torch.tensor(scales_K, dtype=block_KN.dtype, device=block_KN.device) @ kept_KN
    return torch.where(count_N == 1, alone_N, kept_KN.sum(0) / count_N.clamp_(min=1))


def overlap_ratios(blocks: Blocks, thresholds: Sequence[float]) -> list[list[float]]:
    """Per threshold and expert min(rho_i, 1), in one pass over the tensor; 0 for an expert that changes nothing."""
    shared: list[Tensor | int] = [0] * len(thresholds)
    alone: list[Tensor | int] = [0] * len(thresholds)
    for block_KN in blocks():
        for place, threshold in enumerate(thresholds):
            changed_KN = block_KN.abs() > threshold
            count_N = changed_KN.sum(0)
            shared[place] = shared[place] + (changed_KN & (count_N > 1)).sum(1)
            alone[place] = alone[place] + (changed_KN & (count_N == 1)).sum(1)
    return [
        (torch.as_tensor(both) / torch.as_tensor(own).clamp(min=1)).clamp(max=1).tolist()
        for both, own in zip(shared, alone, strict=True)
    ]
