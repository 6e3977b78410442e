"""Qwen3-VL, dense (arXiv 2511.21631): patches of 16 pixels, and features of several layers of the tower (DeepStack)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tinyr1v_ray.models.qwen2_5_vl import Qwen25VL, blank_token

if TYPE_CHECKING:
    from torch import Tensor

    from tinyr1v_ray.models.packed import PackedInputs

_TOWER = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "deepstack_visual_indexes": [5, 11, 17],
}
_2B = {
    "tie_word_embeddings": True,
    "text_config": {
        "hidden_size": 2048,
        "num_hidden_layers": 28,
        "intermediate_size": 6144,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 262144,
    },
    "vision_config": {**_TOWER, "out_hidden_size": 2048},
}
_4B = {
    "tie_word_embeddings": True,
    "text_config": {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 262144,
    },
    "vision_config": {**_TOWER, "out_hidden_size": 2560},
}


class Qwen3VL(Qwen25VL):
    """The family; see `ModelFamily`. That axes of positions are interleaved in a head is the class's own affair."""

    name = "Qwen3-VL"
    architectures: tuple[str, ...] = ("Qwen3VLForConditionalGeneration",)
    published: Mapping[str, Mapping[str, Any]] = {
        "Qwen/Qwen3-VL-2B-Instruct": _2B,
        "Qwen/Qwen3-VL-4B-Instruct": _4B,
    }

    def model_class(self) -> Any:
        """Imported when it is asked for."""
        from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLForConditionalGeneration

        return Qwen3VLForConditionalGeneration

    def hidden_states(self, model: Any, inputs: PackedInputs) -> Tensor:
        """The class's own forward pass, with our places of images, positions and mask.

        Features of the tower's chosen layers are added to the first layers' outputs, where an image's tokens stand.
        """
        visual, language_model = model.model.visual, model.model.language_model
        embeds_RLH = language_model.embed_tokens(inputs.token_ids_RL)
        pixels = inputs.pixels or blank_token(visual.config, inputs.token_ids_RL.device)
        encoded = visual(pixels["pixel_values"].to(visual.dtype), grid_thw=pixels["image_grid_thw"])
        return language_model(
            inputs_embeds=inputs.with_features(embeds_RLH, encoded.pooler_output),
            position_ids=inputs.position_ids_ARL,
            attention_mask=inputs.attention_mask(),
            visual_pos_masks=inputs.image_mask(),
            deepstack_visual_embeds=[each.index_select(0, inputs.feature_N) for each in encoded.deepstack_features],
            use_cache=False,
        ).last_hidden_state

    def published_name(self, name: str) -> str:
        """As the class has it."""
        return name
