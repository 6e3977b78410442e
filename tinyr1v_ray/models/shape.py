"""A model by its shapes: parameters, and bytes of a cached token.

Tensors are counted on the class of transformers itself, made of a config.json on torch's meta device, where it has no
weights. This loads torch and the class: about four seconds in a new process, milliseconds for the next model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyr1v_ray.errors import ModelError
from tinyr1v_ray.models.family import ModelFamily

_NUMBERS = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")
"""What a config.json must say: transformers' defaults are those of some other model."""


@dataclass(frozen=True)
class VisionShape:
    """A vision tower: layers, and how pixels become tokens of the language model."""

    depth: int
    hidden_size: int
    intermediate_size: int
    patch_values: int
    """Numbers in one patch as the processor delivers it."""
    patches_per_token: int
    """Patches that become one token of the language model."""
    pixels_per_token: int
    """Pixels that become one token of the language model; 0 where there is no tower."""

    def max_tokens(self, max_pixels: int) -> int:
        """Tokens of the largest image, marks around it left out."""
        return max_pixels // self.pixels_per_token if self.pixels_per_token else 0


NO_VISION = VisionShape(0, 0, 0, 0, 0, 0)
"""Of a model that reads text alone."""


@dataclass(frozen=True)
class ModelShape:
    """A model. `tensors` are names and shapes of all parameters, a tied head left out, as the class names them."""

    name: str
    hidden_size: int
    num_layers: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    kv_size: int
    """Width of the keys (and of the values) of a token."""
    vocab_size: int
    max_positions: int
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    num_vision_parameters: int
    """Vision tower, and what leads from it to the language model."""
    vision: VisionShape

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """KV cache of a token, all layers; Qwen2.5-VL-3B in bfloat16: 36,864 bytes."""
        return 2 * self.num_layers * self.kv_size * bytes_per_value

    @property
    def num_parameters(self) -> int:
        """All stored parameters."""
        return sum(math.prod(shape) for _, shape in self.tensors)

    @property
    def largest_tensor(self) -> int:
        """Parameters of the largest tensor (the embedding)."""
        return max(math.prod(shape) for _, shape in self.tensors)


def count_shape(name: str, config: Mapping[str, Any], family: ModelFamily) -> ModelShape:
    """Shapes by a config.json, in transformers' old (flat) or new (nested) layout; raises ModelError.

    `name` is what the model is called in messages and in the plan.
    """
    section = config.get("text_config") or config
    if lacking := [number for number in _NUMBERS if number not in section]:
        raise ModelError(
            f"model {name} has a config.json without {lacking[0]}; it is a {family.name}'s; restore it or name another"
        )
    model = _without_weights(name, config, family)
    text = model.config.get_text_config()
    vision = {id(p) for module in family.vision_modules(model) for p in module.parameters()}
    num_heads = text.num_attention_heads
    num_kv_heads = getattr(text, "num_key_value_heads", None) or num_heads
    return ModelShape(
        name=name,
        hidden_size=text.hidden_size,
        num_layers=text.num_hidden_layers,
        intermediate_size=text.intermediate_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        kv_size=(getattr(text, "head_dim", None) or text.hidden_size // num_heads) * num_kv_heads,
        vocab_size=text.vocab_size,
        max_positions=text.max_position_embeddings,
        tensors=tuple((each, tuple(p.shape)) for each, p in model.named_parameters()),
        num_vision_parameters=sum(p.numel() for p in model.parameters() if id(p) in vision),
        vision=family.vision_shape(model.config),
    )


def _without_weights(name: str, config: Mapping[str, Any], family: ModelFamily) -> Any:
    import torch

    model_class = family.model_class()
    try:
        with torch.device("meta"):
            return model_class(model_class.config_class.from_dict(dict(config)))
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model {name} has a config.json that makes no {family.name}: {reason}; restore it or name another"
        ) from error
