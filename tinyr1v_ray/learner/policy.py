"""The trained model as one module: a micro-batch in, log-probs of its completion tokens out.

One `forward` holds all the work, so that DeepSpeed's hooks (gathering under ZeRO 3, reduction under ZeRO 2) see every
module used once per micro-batch, in the same order on all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tinyr1v_ray.learner.logprobs import SelectedLogprobHead
from tinyr1v_ray.learner.micro_batch import MicroBatch
from tinyr1v_ray.learner.pixels import PixelCache
from tinyr1v_ray.models.family import ModelFamily
from tinyr1v_ray.models.packed import PackedInputs


@dataclass(frozen=True)
class PolicyInputs(PackedInputs):
    """A micro-batch on its device. Letters as in `micro_batch`."""

    source_T: Tensor
    targets_T: Tensor


def make_inputs(batch: MicroBatch, pixels: PixelCache) -> PolicyInputs:
    """Tensors of a micro-batch, its images decoded once each."""
    return PolicyInputs(
        token_ids_RL=torch.from_numpy(batch.token_ids_RL),
        position_ids_ARL=torch.from_numpy(batch.position_ids_ARL),
        segment_RL=torch.from_numpy(batch.segment_RL),
        branch_RL=torch.from_numpy(batch.branch_RL),
        is_plain=batch.is_plain,
        image_slot_N=torch.from_numpy(batch.image_slot_N),
        feature_N=torch.from_numpy(batch.feature_N),
        pixels=pixels.inputs(batch.images) if batch.images else None,
        source_T=torch.from_numpy(batch.source_T),
        targets_T=torch.from_numpy(batch.targets_T),
    )


class PolicyModel(nn.Module):
    """A model whose forward returns log pi(target) at the run's temperature, float32 [T]."""

    def __init__(self, model: Any, family: ModelFamily, temperature: float, chunk_tokens: int) -> None:
        super().__init__()
        model.set_output_embeddings(SelectedLogprobHead(model.get_output_embeddings(), chunk_tokens))
        self.model = model
        self.family = family
        self.temperature = temperature

    def forward(self, inputs: PolicyInputs, temperature: float | None = None) -> Tensor:
        """Log-probs of the micro-batch's completion tokens, in its order; `temperature` None is the run's."""
        hidden_RLH = self.family.hidden_states(self.model, inputs)
        predicting_TH = hidden_RLH.flatten(0, 1).index_select(0, inputs.source_T)
        head = self.model.get_output_embeddings()
        return head(predicting_TH, inputs.targets_T, temperature or self.temperature)
