"""Qwen2.5 (arXiv 2412.15115) and Qwen3 (arXiv 2505.09388), dense: text alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyr1v_ray.models.text_only import TextOnly


def _shape(hidden: int, layers: int, intermediate: int, heads: int, kv_heads: int, **others: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": 151936,
        **others,
    }


class Qwen25(TextOnly):
    """The family; see `ModelFamily`. Qwen2 is of the same class."""

    name = "Qwen2.5"
    architectures: tuple[str, ...] = ("Qwen2ForCausalLM",)
    published: Mapping[str, Mapping[str, Any]] = {
        "Qwen/Qwen2.5-1.5B-Instruct": _shape(
            1536, 28, 8960, 12, 2, tie_word_embeddings=True, max_position_embeddings=32768
        ),
        "Qwen/Qwen2.5-3B-Instruct": _shape(
            2048, 36, 11008, 16, 2, tie_word_embeddings=True, max_position_embeddings=32768
        ),
    }

    def model_class(self) -> Any:
        """Imported when it is asked for."""
        from transformers import Qwen2ForCausalLM

        return Qwen2ForCausalLM


class Qwen3(TextOnly):
    """The family; see `ModelFamily`."""

    name = "Qwen3"
    architectures: tuple[str, ...] = ("Qwen3ForCausalLM",)
    published: Mapping[str, Mapping[str, Any]] = {
        "Qwen/Qwen3-1.7B": _shape(
            2048, 28, 6144, 16, 8, head_dim=128, tie_word_embeddings=True, max_position_embeddings=40960
        ),
        "Qwen/Qwen3-4B": _shape(
            2560, 36, 9728, 32, 8, head_dim=128, tie_word_embeddings=True, max_position_embeddings=40960
        ),
    }

    def model_class(self) -> Any:
        """Imported when it is asked for."""
        from transformers import Qwen3ForCausalLM

        return Qwen3ForCausalLM
