"""The warmed-up base that is shipped with the package."""

from __future__ import annotations

from pathlib import Path


def base_model_folder() -> Path:
    """Folder in Hugging Face format with weights, tokenizer, processor, chat template and `miniature.json`.

    The last says by which command, seed and versions it was made, and how it scores on the evaluation pools.
    """
    return Path(__file__).parent / "shipped"
