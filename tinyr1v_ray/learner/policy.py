"""The trained model as one module: a micro-batch in, log-probs of its completion tokens out.

One `forward` holds all the work, so that DeepSpeed's hooks (gathering under ZeRO 3, reduction under ZeRO 2) see every
module used once per micro-batch, in the same order on all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from tinyr1v_ray.learner.logprobs import SelectedLogprobHead
from tinyr1v_ray.learner.micro_batch import MicroBatch
from tinyr1v_ray.learner.pixels import PixelCache


@dataclass(frozen=True)
class PolicyInputs:
    """A micro-batch on its device. Letters as in `micro_batch`.

    `pixel_values` None means that no image occurs. The vision tower runs even then, on one blank token that counts zero
    times: all ranks then communicate the same weights at the same time, and every parameter always has a gradient.
    """

    token_ids_RL: Tensor
    position_ids_3RL: Tensor
    segment_RL: Tensor
    branch_RL: Tensor
    is_plain: bool
    source_T: Tensor
    targets_T: Tensor
    image_slot_N: Tensor
    feature_N: Tensor
    pixel_values: Tensor | None
    grid_thw: Tensor | None

    def to(self, device: torch.device) -> PolicyInputs:
        """Copy to a device."""
        tensors = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)


def make_inputs(batch: MicroBatch, pixels: PixelCache) -> PolicyInputs:
    """Tensors of a micro-batch, its images decoded once each."""
    pixel_values, grid_thw = None, None
    if batch.images:
        grids = pixels.grids(batch.images)
        pixel_values = torch.cat([pixels.patches(image) for image in batch.images])
        grid_thw = torch.tensor([grids[image.sha256] for image in batch.images])
    return PolicyInputs(
        token_ids_RL=torch.from_numpy(batch.token_ids_RL),
        position_ids_3RL=torch.from_numpy(batch.position_ids_3RL),
        segment_RL=torch.from_numpy(batch.segment_RL),
        branch_RL=torch.from_numpy(batch.branch_RL),
        is_plain=batch.is_plain,
        source_T=torch.from_numpy(batch.source_T),
        targets_T=torch.from_numpy(batch.targets_T),
        image_slot_N=torch.from_numpy(batch.image_slot_N),
        feature_N=torch.from_numpy(batch.feature_N),
        pixel_values=pixel_values,
        grid_thw=grid_thw,
    )


class PolicyModel(nn.Module):
    """A Qwen2.5-VL whose forward returns log pi(target) at the run's temperature, float32 [T].

    Each image is encoded once; its features go to every segment that shows it, and their gradients are added up
    before one backward pass through the vision tower. Rows are selected by `index_select`, whose gradient, unlike that
    of indexing, is added up in a fixed order on the CPU.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, temperature: float, chunk_tokens: int) -> None:
        super().__init__()
        model.lm_head = SelectedLogprobHead(model.lm_head, chunk_tokens)
        self.model = model
        self.temperature = temperature

    def forward(self, inputs: PolicyInputs, temperature: float | None = None) -> Tensor:
        """Log-probs of the micro-batch's completion tokens, in its order; `temperature` None is the run's."""
        language_model = self.model.model.language_model
        embeds_RLH = language_model.embed_tokens(inputs.token_ids_RL)
        features_NH = self._encode_images(inputs)
        if inputs.pixel_values is None:
            embeds_RLH = embeds_RLH + features_NH.sum() * 0.0
        else:
            shown_NH = features_NH.index_select(0, inputs.feature_N)
            embeds_RLH = embeds_RLH.flatten(0, 1).index_copy(0, inputs.image_slot_N, shown_NH).view_as(embeds_RLH)
        hidden_RLH = language_model(
            inputs_embeds=embeds_RLH,
            position_ids=inputs.position_ids_3RL,
            attention_mask={"full_attention": attention_mask(inputs)},
            use_cache=False,
        ).last_hidden_state
        predicting_TH = hidden_RLH.flatten(0, 1).index_select(0, inputs.source_T)
        return self.model.lm_head(predicting_TH, inputs.targets_T, temperature or self.temperature)

    def _encode_images(self, inputs: PolicyInputs) -> Tensor:
        """Features of the micro-batch's images, [sum of image tokens, H]."""
        visual = self.model.model.visual
        pixel_values, grid_thw = inputs.pixel_values, inputs.grid_thw
        if pixel_values is None:
            side = visual.spatial_merge_size
            num_values = visual.config.in_channels * visual.config.temporal_patch_size * visual.config.patch_size**2
            pixel_values = torch.zeros(side * side, num_values, device=inputs.token_ids_RL.device)
            grid_thw = torch.tensor([[1, side, side]], device=inputs.token_ids_RL.device)
        return visual(pixel_values.to(visual.dtype), grid_thw=grid_thw).pooler_output


def attention_mask(inputs: PolicyInputs) -> Tensor | None:
    """bool [R, 1, L, L], True where position i sees j: j <= i, in the same segment, on the prompt or i's own branch.

    Padding sees padding, so no row of the softmax is empty. None for plain rows, where causality is enough.
    """
    if inputs.is_plain:
        return None
    num_branches = int(inputs.branch_RL.max()) + 1
    prompt_RL = inputs.segment_RL * num_branches
    place_RL = prompt_RL + inputs.branch_RL
    sees_RLL = (place_RL[:, None, :] == place_RL[:, :, None]) | (place_RL[:, None, :] == prompt_RL[:, :, None])
    return sees_RLL.tril_()[:, None]
