"""Tensor names: one canonical layout for all checkpoints, and what kind of tensor a name denotes.

transformers has written Qwen2.5-VL in two layouts, flat (`model.layers.`, `visual.`) and composite
(`model.language_model.layers.`, `model.visual.`). Matching by raw name merges nothing between the two and says nothing;
so every name is brought to the composite layout first, also those of families that name their parts otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from tinyr1v_ray.errors import MergeError

Kind = Literal["language", "vision", "merger", "embedding", "head", "norm", "bias", "convolution", "other"]

MATRIX_KINDS: tuple[Kind, ...] = ("language", "vision", "merger")
"""Weights of linear layers: what AMM optimises."""

_PREFIXES = (
    ("module.", ""),
    ("base_model.model.", ""),
    ("language_model.lm_head.", "lm_head."),
    ("model.lm_head.", "lm_head."),
    ("language_model.model.", "model.language_model."),
    ("visual.", "model.visual."),
    ("model.text_model.", "model.language_model."),
    ("model.vision_model.", "model.visual."),
    ("model.connector.", "model.visual.merger."),
)
_WRAPPED = re.compile(r"\.(modules_to_save(\.default)?|base_layer)\.")
"""What peft puts between a module's name and a parameter's."""
_KEPT = ("model.language_model.", "model.visual.", "lm_head.")


def canonical_name(name: str) -> str:
    """The composite layout's name.

    >>> canonical_name("model.layers.0.mlp.up_proj.weight")
    'model.language_model.layers.0.mlp.up_proj.weight'
    >>> canonical_name("visual.blocks.1.attn.qkv.weight")
    'model.visual.blocks.1.attn.qkv.weight'
    >>> canonical_name("base_model.model.lm_head.base_layer.weight")
    'lm_head.weight'
    >>> canonical_name("model.connector.modality_projection.proj.weight")
    'model.visual.merger.modality_projection.proj.weight'
    """
    name = _WRAPPED.sub(".", name)
    for prefix, replacement in _PREFIXES:
        if name.startswith(prefix):
            name = replacement + name[len(prefix) :]
    if name.startswith("model.") and not name.startswith(_KEPT):
        name = "model.language_model." + name.removeprefix("model.")
    return name


def canonical_names(names: Iterable[str], owner: str) -> dict[str, str]:
    """canonical -> stored name. Raises MergeError where two stored names mean the same tensor."""
    result: dict[str, str] = {}
    for name in names:
        canonical = canonical_name(name)
        if canonical in result:
            raise MergeError(
                f"{owner} holds both {result[canonical]} and {name}; they name one tensor in two layouts; "
                "save the model again with one of them"
            )
        result[canonical] = name
    return result


LANGUAGE = "model.language_model."
HEAD = "lm_head.weight"
EMBEDDING = LANGUAGE + "embed_tokens.weight"
_NORM = re.compile(r"(^|[._])(norm\d*|ln_q|ln\w*|layernorm|\w+_layernorm|\w*norm)\.(weight|bias)$")


def kind_of(name: str, num_dimensions: int) -> Kind:
    """The kind of a tensor, from its canonical name and its number of dimensions."""
    if name == HEAD:
        return "head"
    if "embed_tokens" in name or "pos_embed" in name or "position_embedding" in name:
        return "embedding"
    if _NORM.search(name):
        return "norm"
    if name.endswith(".bias"):
        return "bias"
    if num_dimensions > 2:
        return "convolution"
    if num_dimensions == 2 and name.endswith(".weight"):
        if name.startswith("model.visual.merger."):
            return "merger"
        return "vision" if name.startswith("model.visual.") else "language"
    return "other"
