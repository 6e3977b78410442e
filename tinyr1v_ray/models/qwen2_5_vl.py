"""Qwen2.5-VL (arXiv 2502.13923): images of any shape in patches of 14 pixels, 2 x 2 of them one token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.models.family import ImageTokens, Tensors

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from tinyr1v_ray.models.packed import PackedInputs
    from tinyr1v_ray.models.shape import VisionShape

_PUBLISHED_PREFIXES = (("model.visual.", "visual."), ("model.language_model.", "model."))
"""Module paths of the model class, and the names that the files have on the hub."""

_3B = {
    "hidden_size": 2048,
    "num_hidden_layers": 36,
    "intermediate_size": 11008,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 128000,
    "vision_config": {"hidden_size": 1280, "out_hidden_size": 2048},
}
_7B = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "max_position_embeddings": 128000,
    "vision_config": {"hidden_size": 1280, "out_hidden_size": 3584},
}


class Qwen25VL:
    """The family; see `ModelFamily`."""

    name = "Qwen2.5-VL"
    architectures: tuple[str, ...] = ("Qwen2_5_VLForConditionalGeneration",)
    image_token = "<|image_pad|>"
    num_position_axes = 3
    published: Mapping[str, Mapping[str, Any]] = {
        "Qwen/Qwen2.5-VL-3B-Instruct": _3B,
        "Qwen/Qwen2.5-VL-7B-Instruct": _7B,
    }

    def model_class(self) -> Any:
        """Imported when it is asked for."""
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration

    def load_processor(self, folder: Path, settings: ModelSettings) -> Any:
        """Its image processor resizes to between the two numbers of pixels."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(str(folder), trust_remote_code=False, **_pixel_limits(settings))

    def image_tokens(self, processor: Any, width_px: int, height_px: int) -> ImageTokens:
        """A token for 2 x 2 patches; it stands at one time, in their row and column (M-RoPE, arXiv 2409.12191)."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        images = processor.image_processor
        side = images.patch_size * images.merge_size
        limits = images.size["shortest_edge"], images.size["longest_edge"]
        height, width = smart_resize(height_px, width_px, side, *limits)
        position_ids_3N = np.indices((1, height // side, width // side)).reshape(3, -1)
        num_tokens = position_ids_3N.shape[1]
        token_ids_N = np.full(num_tokens, processor.image_token_id, np.int64)
        return ImageTokens(token_ids_N, position_ids_3N, np.ones(num_tokens, bool))

    def pixel_inputs(self, processor: Any, images: Sequence[Image.Image]) -> Tensors:
        """Patches [num_patches, 3 * 2 * 14 * 14], and each image's grid of them (time, height, width)."""
        outputs = processor.image_processor(images=list(images), return_tensors="pt")
        return {"pixel_values": outputs["pixel_values"], "image_grid_thw": outputs["image_grid_thw"]}

    def engine_arguments(self, settings: ModelSettings, max_images: int) -> dict[str, Any]:
        """The same limits."""
        limits = {"image": max_images, "video": 0}
        return {"limit_mm_per_prompt": limits, "mm_processor_kwargs": _pixel_limits(settings)}

    def hidden_states(self, model: Any, inputs: PackedInputs) -> Tensor:
        """The class's own forward pass, with our places of images, positions and mask."""
        language_model = model.model.language_model
        embeds_RLH = language_model.embed_tokens(inputs.token_ids_RL)
        pixels = inputs.pixels or blank_token(model.model.visual.config, inputs.token_ids_RL.device)
        visual = model.model.visual
        features_NH = visual(pixels["pixel_values"].to(visual.dtype), grid_thw=pixels["image_grid_thw"]).pooler_output
        return language_model(
            inputs_embeds=inputs.with_features(embeds_RLH, features_NH),
            position_ids=inputs.position_ids_ARL,
            attention_mask={"full_attention": inputs.attention_mask()},
            use_cache=False,
        ).last_hidden_state

    def vision_modules(self, model: Any) -> Sequence[nn.Module]:
        """The merger belongs to the tower."""
        return (model.model.visual,)

    def vision_shape(self, config: Any) -> VisionShape:
        """Patches have two frames, also those of a picture."""
        from tinyr1v_ray.models.shape import VisionShape

        vision = config.vision_config
        patch_pixels, patches_per_token = vision.patch_size**2, vision.spatial_merge_size**2
        return VisionShape(
            depth=vision.depth,
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            patch_values=vision.in_channels * vision.temporal_patch_size * patch_pixels,
            patches_per_token=patches_per_token,
            pixels_per_token=patch_pixels * patches_per_token,
        )

    def published_name(self, name: str) -> str:
        """The flat layout, in which `save_pretrained` writes too.

        >>> Qwen25VL().published_name("model.language_model.layers.0.mlp.up_proj.weight")
        'model.layers.0.mlp.up_proj.weight'
        >>> Qwen25VL().published_name("lm_head.weight")
        'lm_head.weight'
        """
        for prefix, published in _PUBLISHED_PREFIXES:
            if name.startswith(prefix):
                return published + name.removeprefix(prefix)
        return name


def _pixel_limits(settings: ModelSettings) -> dict[str, Any]:
    return {"size": {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels}}


def blank_token(vision: Any, device: Any) -> Tensors:
    """Pixels of one token."""
    import torch

    side = vision.spatial_merge_size
    num_values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {
        "pixel_values": torch.zeros(side * side, num_values, device=device),
        "image_grid_thw": torch.tensor([[1, side, side]], device=device),
    }
