"""Families of language models alone: tokens in, tokens out, and no images anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.models.family import ImageTokens, Tensors

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from tinyr1v_ray.models.packed import PackedInputs
    from tinyr1v_ray.models.shape import VisionShape


class TextOnly:
    """What such families have in common; one of them adds its names, its class and what is published."""

    name: str
    image_token = ""
    num_position_axes = 1

    def load_processor(self, folder: Path, settings: ModelSettings) -> Any:
        """The tokenizer, which holds the chat template."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)

    def image_tokens(self, processor: Any, width_px: int, height_px: int) -> ImageTokens:
        """Raises DataError: there are none."""
        raise DataError(
            f"an image of {width_px} x {height_px} pixels for a {self.name}; it reads text alone; name a model that "
            "reads images, or items without one"
        )

    def pixel_inputs(self, processor: Any, images: Sequence[Image.Image]) -> Tensors:
        """None, for no images: `image_tokens` refuses them earlier."""
        return {}

    def engine_arguments(self, settings: ModelSettings, max_images: int) -> dict[str, Any]:
        """None."""
        return {}

    def hidden_states(self, model: Any, inputs: PackedInputs) -> Tensor:
        """The class's own forward pass, with our mask and positions; those of plain rows are the class's own."""
        mask = inputs.attention_mask()
        return model.model(
            input_ids=inputs.token_ids_RL,
            position_ids=None if mask is None else inputs.position_ids_ARL[0],
            attention_mask=mask,
            use_cache=False,
        ).last_hidden_state

    def vision_modules(self, model: Any) -> Sequence[nn.Module]:
        """None."""
        return ()

    def vision_shape(self, config: Any) -> VisionShape:
        """That of no tower."""
        from tinyr1v_ray.models.shape import NO_VISION

        return NO_VISION

    def published_name(self, name: str) -> str:
        """As the class has it."""
        return name
