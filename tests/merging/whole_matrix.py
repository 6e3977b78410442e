"""Any merge method on one matrix that is at hand: what a merge of checkpoints must store."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyr1v_ray.config.merge import MethodConfig
from tinyr1v_ray.merging.blocks import row_blocks
from tinyr1v_ray.merging.methods import ENTRYWISE, BlockMerger, merge_matrix, survey


def merged_matrix(vectors_K: Sequence[Tensor], method: MethodConfig, name: str) -> Tensor:
    """Cut as the definition cuts it; `name` seeds DARE's masks."""
    if method.name not in ENTRYWISE:
        return merge_matrix(vectors_K, method, name).task_vector
    stack = torch.stack(list(vectors_K))
    blocks = [stack[:, a:b].reshape(len(stack), -1) for _, a, b in row_blocks(*stack.shape[1:])]
    (found,) = survey(method.name, [method], lambda: blocks)
    merger = BlockMerger(method.name, method, name, found)
    return torch.cat([merger.merge(block, number).clone() for number, block in enumerate(blocks)]).view(stack.shape[1:])
