"""A custom family, as a user writes one for a language model that the package does not know: a Llama.

`model.family=own_family:Llama` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyr1v_ray.models.text_only import TextOnly


class Llama(TextOnly):
    """The family; see `ModelFamily`."""

    name = "Llama"
    architectures: tuple[str, ...] = ("LlamaForCausalLM",)
    published: Mapping[str, Mapping[str, Any]] = {}

    def model_class(self) -> Any:
        from transformers import LlamaForCausalLM

        return LlamaForCausalLM


def write_folder(folder: Path) -> Path:
    """A tiny random model."""
    from tiny_families import write_text
    from transformers import LlamaConfig, LlamaForCausalLM

    write_text(folder, LlamaForCausalLM, LlamaConfig)
    return folder


def reward_letters(text: str, answer: str, question: str, domain: str) -> float:
    """How varied a text is: a reward that even a random model's answers differ by."""
    return len(set(text)) / max(len(text), 1)
