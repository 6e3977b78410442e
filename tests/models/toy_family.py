"""A second family, as a user writes one: Idefics3, in which little is as in Qwen2.5-VL.

Images are cut into square tiles, whose tokens stand between marks that are tokens like any other; positions are plain
numbers; the language model is a Llama. `model.family=toy_family:Idefics3` names it. The model in `write_folder` is tiny
and random; `reward_letters` is a reward that even its answers differ by.
"""

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


class Idefics3:
    """The family; see `ModelFamily`."""

    name = "Idefics3"
    architectures: tuple[str, ...] = ("Idefics3ForConditionalGeneration",)
    image_token = "<image>"
    num_position_axes = 1
    published: Mapping[str, Mapping[str, Any]] = {}

    def model_class(self) -> Any:
        from transformers import Idefics3ForConditionalGeneration

        return Idefics3ForConditionalGeneration

    def load_processor(self, folder: Path, settings: ModelSettings) -> Any:
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(str(folder), **_longest_edge(settings))

    def image_tokens(self, processor: Any, width_px: int, height_px: int) -> ImageTokens:
        """Rows of tiles and a small copy of the whole, each after its mark."""
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
        return {"limit_mm_per_prompt": {"image": max_images}, "mm_processor_kwargs": _longest_edge(settings)}

    def hidden_states(self, model: Any, inputs: PackedInputs) -> Tensor:
        import torch

        inner, device = model.model, inputs.token_ids_RL.device
        side = model.config.vision_config.image_size
        pixels = inputs.pixels or {
            "pixel_values": torch.ones(1, 3, side, side, device=device),  # the class leaves out what is all zero
            "pixel_attention_mask": torch.ones(1, side, side, dtype=torch.int64, device=device),
        }
        features_TNH = inner.get_image_features(**{name: tensor[None] for name, tensor in pixels.items()}).pooler_output
        embeds_RLH = inner.text_model.get_input_embeddings()(inputs.token_ids_RL)
        return inner.text_model(
            inputs_embeds=inputs.with_features(embeds_RLH, features_TNH.flatten(0, 1)),
            position_ids=inputs.position_ids_ARL[0],
            attention_mask=inputs.attention_mask(),
            use_cache=False,
        ).last_hidden_state

    def vision_modules(self, model: Any) -> Sequence[nn.Module]:
        return model.model.vision_model, model.model.connector

    def vision_shape(self, config: Any) -> VisionShape:
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
        return name


def _longest_edge(settings: ModelSettings) -> dict[str, Any]:
    return {"size": {"longest_edge": math.isqrt(settings.max_pixels)}}


def reward_letters(text: str, answer: str, question: str, domain: str) -> float:
    """How varied a text is."""
    return len(set(text)) / max(len(text), 1)


TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TILE, PATCH, SCALE = 56, 14, 2
MARKS = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]


def write_folder(folder: Path) -> Path:
    """A complete model folder: 0.2M random parameters, the miniature's tokenizer and the marks of Idefics3."""
    import torch
    from tokenizers import AddedToken
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor, Idefics3Processor

    from tinyr1v_ray.miniature.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(0)
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in [*MARKS, *places]])
    images = Idefics3ImageProcessor(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE})
    processor = Idefics3Processor(images, tokenizer, (TILE // PATCH // SCALE) ** 2, chat_template=TEMPLATE)
    special = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "max_position_embeddings": 512, "vocab_size": len(tokenizer), **special}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Idefics3Config(
        text_config={"model_type": "llama", **text},
        vision_config={**vision, "image_size": TILE, "patch_size": PATCH},
        scale_factor=SCALE,
        image_token_id=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(config)
    with torch.no_grad():  # far from the symmetric start, so that errors show
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
