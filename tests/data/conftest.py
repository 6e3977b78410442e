"""A model folder with a real Qwen2.5-VL processor and a byte-level tokenizer, made from nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2_5_VLProcessor, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.data.processor import PromptProcessor

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
TEMPLATE = (
    "{%- if messages[0].role != 'system' -%}<|im_start|>system\nHelp.<|im_end|>\n{%- endif -%}"
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n"
    "{%- if message.content is string -%}{{ message.content }}{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)


def build_model_folder(folder: Path) -> Path:
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=[], eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=None
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    processor = Qwen2_5_VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE)
    processor.save_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    architectures = ["Qwen2_5_VLForConditionalGeneration"]
    config = {"architectures": architectures, "vocab_size": 272, "image_token_id": ids[5]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [ids[2], ids[0]]}))
    save_file({"model.embed_tokens.weight": np.zeros((272, 4), np.float32)}, str(folder / "model.safetensors"))
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def processor(model_folder: Path) -> PromptProcessor:
    return PromptProcessor(model_folder, ModelSettings(min_pixels=784, max_pixels=100 * 784))


@pytest.fixture
def picture() -> Callable[..., bytes]:
    def make(width: int = 56, height: int = 28, seed: int = 0, format: str = "PNG", mode: str = "RGB") -> bytes:
        channels = {"RGB": (3,), "L": (), "RGBA": (4,)}[mode]
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels, mode).save(buffer, format)
        return buffer.getvalue()

    return make
