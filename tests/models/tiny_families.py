"""Tiny random models of transformers' own classes, a complete folder for each architecture that the package knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.miniature.processor import CHAT_TEMPLATE, make_processor

TEXT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\n' + message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A language model's: a message's content is a text."""
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 512,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}


def save_random(model: PreTrainedModel, folder: Path) -> None:
    """Random weights far from the symmetric start, so that errors show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.06 * noise if parameter.ndim > 1 else parameter + 0.1 * noise)
    model.save_pretrained(folder)


def shipped_tokenizer() -> Qwen2Tokenizer:
    """The miniature's: 512 ids, Qwen's marks among them."""
    return Qwen2Tokenizer.from_pretrained(base_model_folder())


def qwen_image_ids(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    """Ids of Qwen's marks, by their keys in a configuration."""
    token_id = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
    }


def write_qwen2_5_vl(folder: Path) -> None:
    """Windowed and full attention in the tower, a tied head."""
    tokenizer = shipped_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": MROPE},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "window_size": 56, "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=True,
        dtype="float32",
        **qwen_image_ids(tokenizer),
    )  # fmt: skip
    save_random(Qwen2_5_VLForConditionalGeneration(config), folder)
    make_processor(tokenizer).save_pretrained(folder)


def write_qwen2_vl(folder: Path) -> None:
    """An untied head, as the larger ones have it."""
    tokenizer = shipped_tokenizer()
    config = Qwen2VLConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": MROPE},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 2},
        tie_word_embeddings=False,
        dtype="float32",
        **qwen_image_ids(tokenizer),
    )
    save_random(Qwen2VLForConditionalGeneration(config), folder)
    size = {"shortest_edge": 784, "longest_edge": 112 * 112}
    images, videos = Qwen2VLImageProcessor(size=size), Qwen2VLVideoProcessor(size=size)
    Qwen2VLProcessor(images, tokenizer, videos, chat_template=CHAT_TEMPLATE).save_pretrained(folder)


def write_qwen3_vl(folder: Path) -> None:
    """Features of two layers of the tower for two of the language model's three (what the last one adds to an image's
    own tokens, nothing sees); patches of 16 pixels; a tied head.
    """
    tokenizer = shipped_tokenizer()
    config = Qwen3VLConfig(
        text_config={
            **TEXT, "num_hidden_layers": 3, "vocab_size": len(tokenizer),
            "rope_parameters": {**MROPE, "mrope_interleaved": True},
        },
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
        },
        tie_word_embeddings=True,
        dtype="float32",
        **qwen_image_ids(tokenizer),
    )  # fmt: skip
    save_random(Qwen3VLForConditionalGeneration(config), folder)
    size = {"shortest_edge": 1024, "longest_edge": 128 * 128}
    images, videos = Qwen2VLImageProcessor(size=size, patch_size=16), Qwen3VLVideoProcessor(size=size)
    Qwen3VLProcessor(images, tokenizer, videos, chat_template=CHAT_TEMPLATE).save_pretrained(folder)


def write_smolvlm(folder: Path) -> None:
    """Tiles of 56 pixels, of which the four patches of a side of 14 make four tokens; an untied head."""
    tokenizer = shipped_tokenizer()
    marks = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in [*marks, *places]])
    images = Idefics3ImageProcessor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    processor = Idefics3Processor(images, tokenizer, 4, chat_template=CHAT_TEMPLATE.replace(QWEN_IMAGE, "<image>"))
    config = Idefics3Config(
        text_config={"model_type": "llama", **TEXT, "vocab_size": len(tokenizer)},
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 56, "patch_size": 14,
        },
        scale_factor=2,
        image_token_id=processor.image_token_id,
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="float32",
    )  # fmt: skip
    save_random(Idefics3ForConditionalGeneration(config), folder)
    processor.save_pretrained(folder)


def write_text(folder: Path, model_class: type[PreTrainedModel], config_class: type[PreTrainedConfig]) -> None:
    """Tokens alone: no image processor, and a template that takes texts."""
    tokenizer = shipped_tokenizer()
    tokenizer.chat_template = TEXT_TEMPLATE
    config = config_class(**TEXT, vocab_size=len(tokenizer), tie_word_embeddings=True, dtype="float32")
    save_random(model_class(config), folder)
    tokenizer.save_pretrained(folder)


def write_qwen2_5(folder: Path) -> None:
    """Keys, queries and values have biases."""
    write_text(folder, Qwen2ForCausalLM, Qwen2Config)


def write_qwen3(folder: Path) -> None:
    """Keys and queries have norms; heads have a width of their own."""
    write_text(folder, Qwen3ForCausalLM, Qwen3Config)


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "Qwen2_5_VLForConditionalGeneration": write_qwen2_5_vl,
    "Qwen2VLForConditionalGeneration": write_qwen2_vl,
    "Qwen3VLForConditionalGeneration": write_qwen3_vl,
    "Idefics3ForConditionalGeneration": write_smolvlm,
    "Qwen2ForCausalLM": write_qwen2_5,
    "Qwen3ForCausalLM": write_qwen3,
}
"""By architecture."""
