"""Settings that no weight shows and that change what weights do, in one form: transformers has written them in several
(`rope_theta` and `rope_scaling`, or `rope_parameters`; those of the text at the root, or in `text_config`).

What a config leaves out is a default of the installed transformers, which is asked only where it matters: its import
takes seconds and as much memory as a merge of large files.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError


@dataclass(frozen=True)
class UnweightedSettings:
    """What no weight shows, without what is unset."""

    tied: bool | None
    """Whether the head is the embedding; the root's word goes before the text's."""
    positions: dict[str, Any]
    """RoPE's type, theta and scaling, the window of attention, and the layers that have one."""
    token_ids: dict[str, Any]
    """Special tokens by their key."""


def written_settings(config: dict[str, Any]) -> UnweightedSettings:
    """As a config.json has them."""
    return _settings(config, {**config, **(config.get("text_config") or {})})


def known_settings(config: dict[str, Any]) -> UnweightedSettings:
    """As the installed transformers understands a config.json, defaults filled in; as written where it does not."""
    from transformers import AutoConfig

    try:
        known = AutoConfig.for_model(**copy.deepcopy(config))
        return _settings(known.to_dict(), known.get_text_config(decoder=True).to_dict())
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError):
        return written_settings(config)


def is_tied(config: dict[str, Any]) -> bool:
    """Whether the head is the embedding: as written, else by the model type's default."""
    written = written_settings(config).tied
    return bool(known_settings(config).tied) if written is None else written


def differing(
    first: dict[str, Any], second: dict[str, Any], part: Literal["positions", "token_ids"]
) -> dict[str, tuple[Any, Any]]:
    """Key -> what two configs have, where they differ. A default that only one of them writes is no difference."""
    own, other = (getattr(written_settings(config), part) for config in (first, second))
    if own != other:
        own, other = (getattr(known_settings(config), part) for config in (first, second))
    keys = sorted(own.keys() | other.keys())
    return {key: (own.get(key), other.get(key)) for key in keys if own.get(key) != other.get(key)}


def _settings(model: dict[str, Any], text: dict[str, Any]) -> UnweightedSettings:
    ids = {key: value for key, value in {**text, **model}.items() if key.endswith(("_token_id", "_token_index"))}
    tied = model.get("tie_word_embeddings", text.get("tie_word_embeddings"))
    return UnweightedSettings(None if tied is None else bool(tied), _positions(text), _set(ids))


def _positions(text: dict[str, Any]) -> dict[str, Any]:
    rope = dict(text.get("rope_parameters") or text.get("rope_scaling") or {})
    older = rope.pop("type", None)
    kind = rope.get("rope_type") or older  # mrope is what multimodal RoPE was called before its sections alone told it
    rope["rope_type"] = "default" if kind in (None, "mrope") else kind
    rope.setdefault("rope_theta", text.get("rope_theta"))
    windowed = text.get("use_sliding_window", True)
    layers = [index for index, kind in enumerate(text.get("layer_types") or []) if kind == "sliding_attention"]
    return _set(
        {f"rope.{key}": value for key, value in rope.items()}
        | {"sliding_window": text.get("sliding_window") if windowed else None, "sliding_layers": layers or None}
    )


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
