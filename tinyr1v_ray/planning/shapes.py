"""A Qwen2.5-VL by its shapes: parameters, bytes of a cached token, flops of a token; only config.json is read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from tinyr1v_ray.data.model_folder import is_hub_name, named_folder, read_json
from tinyr1v_ray.errors import ModelError


@dataclass(frozen=True)
class VisionShape:
    """The vision tower; defaults are those of transformers' `Qwen2_5_VLVisionConfig`."""

    depth: int = 32
    hidden_size: int = 3584
    intermediate_size: int = 3420
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    out_hidden_size: int = 3584

    @property
    def patch_values(self) -> int:
        """Numbers in one patch as the processor delivers it."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def patches_per_token(self) -> int:
        """Patches that become one token of the language model."""
        return self.spatial_merge_size**2

    @property
    def pixels_per_token(self) -> int:
        """Pixels that become one token of the language model."""
        return (self.patch_size * self.spatial_merge_size) ** 2


@dataclass(frozen=True)
class ModelShape:
    """A Qwen2.5-VL. `tied`: the vocabulary head is the embedding, stored once."""

    name: str
    hidden_size: int
    num_layers: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    tied: bool
    max_positions: int
    vision: VisionShape

    @property
    def kv_size(self) -> int:
        """Width of the keys (and of the values) of a token."""
        return self.hidden_size // self.num_heads * self.num_kv_heads

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """KV cache of a token, all layers; Qwen2.5-VL-3B in bfloat16: 36,864 bytes."""
        return 2 * self.num_layers * self.kv_size * bytes_per_value

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every stored tensor, in the layout that transformers 5 writes."""
        hidden, kv, inner = self.hidden_size, self.kv_size, self.intermediate_size
        yield "model.language_model.embed_tokens.weight", (self.vocab_size, hidden)
        for index in range(self.num_layers):
            layer = f"model.language_model.layers.{index}."
            for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
                yield f"{layer}self_attn.{name}_proj.weight", (rows, hidden)
                yield f"{layer}self_attn.{name}_proj.bias", (rows,)
            yield f"{layer}self_attn.o_proj.weight", (hidden, hidden)
            yield f"{layer}mlp.gate_proj.weight", (inner, hidden)
            yield f"{layer}mlp.up_proj.weight", (inner, hidden)
            yield f"{layer}mlp.down_proj.weight", (hidden, inner)
            yield f"{layer}input_layernorm.weight", (hidden,)
            yield f"{layer}post_attention_layernorm.weight", (hidden,)
        yield "model.language_model.norm.weight", (hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocab_size, hidden)
        yield from self._vision_tensors()

    def _vision_tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        vision = self.vision
        hidden, inner, wide = (
            vision.hidden_size,
            vision.intermediate_size,
            vision.hidden_size * vision.patches_per_token,
        )
        patch = (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
        yield "model.visual.patch_embed.proj.weight", (hidden, *patch)
        for index in range(vision.depth):
            block = f"model.visual.blocks.{index}."
            yield f"{block}norm1.weight", (hidden,)
            yield f"{block}norm2.weight", (hidden,)
            linears = (
                ("attn.qkv", 3 * hidden, hidden),
                ("attn.proj", hidden, hidden),
                ("mlp.gate_proj", inner, hidden),
                ("mlp.up_proj", inner, hidden),
                ("mlp.down_proj", hidden, inner),
            )
            for name, rows, columns in linears:
                yield f"{block}{name}.weight", (rows, columns)
                yield f"{block}{name}.bias", (rows,)
        yield "model.visual.merger.ln_q.weight", (hidden,)
        for name, rows in (("mlp.0", wide), ("mlp.2", vision.out_hidden_size)):
            yield f"model.visual.merger.{name}.weight", (rows, wide)
            yield f"model.visual.merger.{name}.bias", (rows,)

    @property
    def num_parameters(self) -> int:
        """All stored parameters."""
        return sum(math.prod(shape) for _, shape in self.tensors())

    @property
    def num_vision_parameters(self) -> int:
        """Vision tower and merger."""
        return sum(math.prod(shape) for _, shape in self._vision_tensors())

    @property
    def largest_tensor(self) -> int:
        """Parameters of the largest tensor (the embedding)."""
        return max(math.prod(shape) for _, shape in self.tensors())

    @property
    def flops_per_token(self) -> float:
        """Forward pass of a token through the language model's layers: two per weight; the head is apart."""
        per_layer = (
            2 * self.hidden_size * (self.hidden_size + self.kv_size) + 3 * self.hidden_size * self.intermediate_size
        )
        return 2.0 * self.num_layers * per_layer

    @property
    def flops_per_logits(self) -> float:
        """Logits of one position."""
        return 2.0 * self.hidden_size * self.vocab_size

    @property
    def flops_per_image_token(self) -> float:
        """Forward pass through the vision tower, per token that comes out."""
        return 2.0 * self.num_vision_parameters * self.vision.patches_per_token


_QWEN_VISION = {"hidden_size": 1280, "in_channels": 3, "patch_size": 14}
KNOWN = {
    "Qwen/Qwen2.5-VL-3B-Instruct": ModelShape(
        *("Qwen/Qwen2.5-VL-3B-Instruct", 2048, 36, 11008, 16, 2, 151936, True, 128000),
        VisionShape(**_QWEN_VISION, out_hidden_size=2048),
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": ModelShape(
        *("Qwen/Qwen2.5-VL-7B-Instruct", 3584, 28, 18944, 28, 4, 152064, False, 128000),
        VisionShape(**_QWEN_VISION, out_hidden_size=3584),
    ),
}
"""Numbers of the two models' public config.json (huggingface.co/Qwen/...), so that a plan needs no download."""


def find_shape(path: str, fallback: str = "") -> ModelShape:
    """Shapes of `miniature`, a local folder, a hub name that is cached here, or one of KNOWN.

    `fallback` names the model that stands in where `path` is not there yet; without it, a folder in runs/ or models/
    whose name says a known size (`runs/tiny_r1v_3b`) gets that model's. Raises ModelError for a name that nothing here
    knows.
    """
    folder = named_folder(path)
    if (folder / "config.json").is_file():
        return shape_from_config(path, read_json(folder / "config.json"))
    if path in KNOWN:
        return KNOWN[path]
    if cached := _cached_config(path):
        return shape_from_config(path, read_json(cached))
    if stands_in := fallback or _named_size(path):
        return find_shape(stands_in)
    raise ModelError(
        f"model {path!r} is no folder with a config.json, is not in the hub's cache here and not one of "
        f"{', '.join(KNOWN)}; a plan needs the model's shapes; download its config.json (hf download {path} "
        "config.json) or name a folder"
    )


def stand_in_note(path: str, shape: ModelShape) -> tuple[str, ...]:
    """What to tell of a model whose shapes are another's."""
    return () if shape.name == path else (f"{path} is not here yet: planned with the shapes of {shape.name}",)


def _named_size(path: str) -> str:
    """The known model of the size that a folder's name says, for models that are yet to be made: runs/tiny_r1v_3b."""
    size = re.search(r"(?<![A-Za-z0-9])(\d+)[bB](?![A-Za-z0-9])", Path(path).name)
    if size is None or is_hub_name(path):  # another model: its size alone says nothing of its shapes
        return ""
    return next((name for name in KNOWN if f"-{size[1]}B-" in name), "")


def _cached_config(name: str) -> Path | None:
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def shape_from_config(name: str, config: Mapping[str, Any]) -> ModelShape:
    """Shapes by a config.json, in transformers' old (flat) or new (nested) layout; raises ModelError."""
    text = config.get("text_config") or config
    vision = config.get("vision_config") or {}
    aliases = {"in_channels": ("in_channels", "in_chans")}
    values = {
        field: next((vision[key] for key in aliases.get(field, (field,)) if key in vision), None)
        for field in VisionShape.__dataclass_fields__
    }
    try:
        return ModelShape(
            name=name,
            hidden_size=text["hidden_size"],
            num_layers=text["num_hidden_layers"],
            intermediate_size=text["intermediate_size"],
            num_heads=text["num_attention_heads"],
            num_kv_heads=text.get("num_key_value_heads") or text["num_attention_heads"],
            vocab_size=text["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True))),
            max_positions=text.get("max_position_embeddings", 0),
            vision=VisionShape(**{field: value for field, value in values.items() if value is not None}),
        )
    except KeyError as error:
        raise ModelError(
            f"model {name} has a config.json without {error.args[0]}; it is a Qwen2.5-VL's; restore it or name another"
        ) from error
