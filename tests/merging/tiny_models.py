"""Tiny Qwen2.5-VL models written by transformers, and experts made from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tinyr1v_ray.merging.session import MergeSummary

Merge = Callable[..., MergeSummary]


def write_tiny_model(folder: Path, *, tied: bool, seed: int = 0) -> Path:
    """A real Qwen2.5-VL of 0.1 M parameters as `save_pretrained` writes it, with a tokenizer."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    text = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": tied, "bos_token_id": 0, "eos_token_id": 1,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=tied,
        image_token_id=500, video_token_id=501, vision_start_token_id=502, vision_end_token_id=503,
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.save_pretrained(folder)
    generation = {"eos_token_id": [1, 2], "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    vocab = {f"t{index}": index for index in range(500)}
    specials = ["<image>", "<video>", "<vs>", "<ve>"]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": 500 + i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for i, token in enumerate(specials)
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "t1", "pad_token": "t2"})
    )
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")


def write_expert(base: Path, folder: Path, *, seed: int, scale: float = 1e-3) -> Path:
    """The base with a random delta of rms `scale` on every tensor."""
    folder.mkdir(parents=True)
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(base / "model.safetensors")
    moved = {
        name: tensor + scale * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in tensors.items()
    }
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


Weights = dict[str, Tensor]
QUICK = {"amm": {"steps": 8}}


def weights(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def report(folder: Path) -> dict:
    return json.loads((folder / "merge.json").read_text())


def is_linear(name: str, weight: Tensor) -> bool:
    return weight.ndim == 2 and "embed" not in name and "lm_head" not in name and "norm" not in name


def with_changes(source: Path, target: Path, change: Callable[[Weights], Weights]) -> Path:
    shutil.copytree(source, target)
    save_file(change(weights(source)), target / "model.safetensors", metadata={"format": "pt"})
    return target


def shard(folder: Path) -> Path:
    """Split a folder's weights into two shards; returns the index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def composite_name(name: str) -> str:
    """As transformers calls a tensor now."""
    if name.startswith("visual."):
        return "model." + name
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def composite(tensors: Weights) -> Weights:
    """The same tensors under such names."""
    return {composite_name(name): tensor for name, tensor in tensors.items()}
