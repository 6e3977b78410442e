"""Loading a base model for training."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from tinyr1v_ray.errors import ModelError


def load_base_model(folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    """The model in `folder`, float32, dropout off; nothing is fetched from a hub and no code of the folder is run.

    Dropout would make the learner's log-probs differ from the engine's. Raises ModelError when the folder does not
    hold a Qwen2.5-VL that can be read, or one with sliding-window attention, which packed rows do not support.
    """
    disable_progress_bar()
    try:
        config = Qwen2_5_VLConfig.from_pretrained(folder, local_files_only=True)
        config.text_config.attention_dropout = 0.0
        model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
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
            f"model folder {folder} cannot be loaded: {reason}; it holds a Qwen2.5-VL with safetensors weights; "
            "restore it or name another model.path"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"model folder {folder} lacks {len(missing)} weights, such as {missing[0]}; a base is complete; restore it"
        )
    if "sliding_attention" in config.text_config.layer_types:
        raise ModelError(
            f"model folder {folder} uses sliding-window attention; rows are packed under a full mask; "
            "use a model with use_sliding_window false"
        )
    return model
