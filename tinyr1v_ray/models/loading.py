"""Loading a base model for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from tinyr1v_ray.errors import ModelError
from tinyr1v_ray.models.family import ModelFamily


def load_model(folder: Path, family: ModelFamily) -> Any:
    """The model in `folder`, float32, dropout off; nothing is fetched from a hub and no code of the folder is run.

    Dropout would make the learner's log-probs differ from the engine's. Raises ModelError when the folder does not
    hold a model of the family that can be read, or one with sliding-window attention, which packed rows do not support.
    """
    disable_progress_bar()
    model_class = family.model_class()
    try:
        config = model_class.config_class.from_pretrained(folder, local_files_only=True)
        text_config = config.get_text_config()
        text_config.attention_dropout = 0.0
        model, report = model_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model folder {folder} cannot be loaded: {reason}; it holds a {family.name} with safetensors weights; "
            "restore it or name another model.path"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"model folder {folder} lacks {len(missing)} weights, such as {missing[0]}; a base is complete; restore it"
        )
    if "sliding_attention" in (getattr(text_config, "layer_types", None) or ()):
        raise ModelError(
            f"model folder {folder} uses sliding-window attention; rows are packed under a full mask; "
            "use a model with use_sliding_window false"
        )
    return model
