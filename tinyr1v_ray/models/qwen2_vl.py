"""Qwen2-VL (arXiv 2409.12191): Qwen2.5-VL's images and positions, and a tower of full attention with plain layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tinyr1v_ray.models.qwen2_5_vl import Qwen25VL

if TYPE_CHECKING:
    from tinyr1v_ray.models.shape import VisionShape

_2B = {
    "hidden_size": 1536,
    "num_hidden_layers": 28,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
    "vision_config": {"embed_dim": 1280, "hidden_size": 1536},
}


class Qwen2VL(Qwen25VL):
    """The family; see `ModelFamily`."""

    name = "Qwen2-VL"
    architectures: tuple[str, ...] = ("Qwen2VLForConditionalGeneration",)
    published: Mapping[str, Mapping[str, Any]] = {"Qwen/Qwen2-VL-2B-Instruct": _2B}

    def model_class(self) -> Any:
        """Imported when it is asked for."""
        from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLForConditionalGeneration

        return Qwen2VLForConditionalGeneration

    def vision_shape(self, config: Any) -> VisionShape:
        """The tower's width goes by another name: `hidden_size` is the language model's."""
        from tinyr1v_ray.models.shape import VisionShape

        vision = config.vision_config
        patch_pixels, patches_per_token = vision.patch_size**2, vision.spatial_merge_size**2
        return VisionShape(
            depth=vision.depth,
            hidden_size=vision.embed_dim,
            intermediate_size=vision.embed_dim * vision.mlp_ratio,
            patch_values=vision.in_channels * vision.temporal_patch_size * patch_pixels,
            patches_per_token=patches_per_token,
            pixels_per_token=patch_pixels * patches_per_token,
        )
