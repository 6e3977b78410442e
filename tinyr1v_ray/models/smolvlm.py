"""SmolVLM (arXiv 2504.05299), of the class of Idefics3 (arXiv 2408.12637): square tiles between marks, and a Llama."""

from __future__ import annotations

import math
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


class SmolVLM:
    """The family; see `ModelFamily`. SmolVLM2, made for videos, is of another class."""

    name = "SmolVLM"
    architectures: tuple[str, ...] = ("Idefics3ForConditionalGeneration",)
    image_token = "<image>"
    num_position_axes = 1
    published: Mapping[str, Mapping[str, Any]] = {}

    def model_class(self) -> Any:
        """Imported when it is asked for."""
        from transformers import Idefics3ForConditionalGeneration

        return Idefics3ForConditionalGeneration

    def load_processor(self, folder: Path, settings: ModelSettings) -> Any:
        """Its image processor brings every image to one length of its longer side."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(str(folder), trust_remote_code=False, **_longest_edge(settings))

    def image_tokens(self, processor: Any, width_px: int, height_px: int) -> ImageTokens:
        """Rows of tiles and a small copy of the whole, each after its mark; positions are plain numbers."""
        _, rows, columns = processor.image_processor.get_number_of_image_patches(height_px, width_px, {})
        text = processor.replace_image_token({"rows": [[rows]], "cols": [[columns]]}, 0)
        token_ids_N = np.array(processor.tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)
        return ImageTokens(token_ids_N, np.arange(len(token_ids_N))[None], token_ids_N == processor.image_token_id)

    def pixel_inputs(self, processor: Any, images: Sequence[Image.Image]) -> Tensors:
        """Tiles of all images, and which of their pixels are no padding."""
        import torch

        alone = [processor.image_processor(images=[[image]], return_tensors="pt") for image in images]
        names = ("pixel_values", "pixel_attention_mask")
        return {name: torch.cat([outputs[name][0] for outputs in alone]) for name in names}

    def engine_arguments(self, settings: ModelSettings, max_images: int) -> dict[str, Any]:
        """The same length."""
        return {"limit_mm_per_prompt": {"image": max_images}, "mm_processor_kwargs": _longest_edge(settings)}

    def hidden_states(self, model: Any, inputs: PackedInputs) -> Tensor:
        """The class's own forward pass, with our places of images, positions and mask."""
        inner = model.model
        pixels = inputs.pixels or _blank_tile(model.config.vision_config, inputs.token_ids_RL.device)
        features_TNH = inner.get_image_features(**{name: tensor[None] for name, tensor in pixels.items()}).pooler_output
        embeds_RLH = inner.text_model.get_input_embeddings()(inputs.token_ids_RL)
        return inner.text_model(
            inputs_embeds=inputs.with_features(embeds_RLH, features_TNH.flatten(0, 1)),
            position_ids=inputs.position_ids_ARL[0],
            attention_mask=inputs.attention_mask(),
            use_cache=False,
        ).last_hidden_state

    def vision_modules(self, model: Any) -> Sequence[nn.Module]:
        """Tower and connector."""
        return model.model.vision_model, model.model.connector

    def vision_shape(self, config: Any) -> VisionShape:
        """Patches are of one frame."""
        from tinyr1v_ray.models.shape import VisionShape

        vision, patches_per_token = config.vision_config, config.scale_factor**2
        return VisionShape(
            depth=vision.num_hidden_layers,
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            patch_values=vision.num_channels * vision.patch_size**2,
            patches_per_token=patches_per_token,
            pixels_per_token=vision.patch_size**2 * patches_per_token,
        )

    def published_name(self, name: str) -> str:
        """As the class has it."""
        return name


def _longest_edge(settings: ModelSettings) -> dict[str, Any]:
    return {"size": {"longest_edge": math.isqrt(settings.max_pixels)}}


def _blank_tile(vision: Any, device: Any) -> Tensors:
    """White: the class leaves out a tile that is all zero."""
    import torch

    side = vision.image_size
    return {
        "pixel_values": torch.ones(1, vision.num_channels, side, side, device=device),
        "pixel_attention_mask": torch.ones(1, side, side, dtype=torch.int64, device=device),
    }
