"""Which folder a model name means, and whether what lies there belongs together.

Read as files, without torch or transformers: a bad folder is refused before anything heavy starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyr1v_ray.errors import CheckpointError, ModelError
from tinyr1v_ray.files.safetensors_file import TensorRef, read_header
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.models.family import ModelFamily
from tinyr1v_ray.models.registry import find_family

MINIATURE = "miniature"
_HUB_NAME = re.compile(r"(?!(runs|models)/)[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""owner/name; what is written as below runs/ or models/ is a folder, be it there or not."""
_EMBEDDING_ENDING = "embed_tokens.weight"
_REQUIRED = {
    "configuration": (("config.json",),),
    "tokenizer": (("tokenizer.json",), ("vocab.json", "merges.txt")),
    "processor": (("preprocessor_config.json",), ("processor_config.json",)),
    "weights": (("model.safetensors",), ("model.safetensors.index.json",)),
}
"""What a folder must hold: for each part, one of several sets of files."""


def resolve_model_folder(path: str, own_family: str = "") -> Path:
    """Folder of `miniature` (shipped with the package), a local folder, or a hub name (downloaded once); checked.

    `own_family` is the setting `model.family`. Raises ModelError when nothing is there, a part is missing, the model is
    of no known family, or model and tokenizer do not fit.
    """
    folder = fetch_model_folder(path)
    check_model_folder(folder, own_family)
    return folder


def fetch_model_folder(path: str, with_weights: bool = True) -> Path:
    """The same, whatever lies in the folder; raises ModelError when nothing is there."""
    if (folder := find_model_folder(path)) is not None:
        return folder
    from huggingface_hub import snapshot_download  # a fifth of a second, which only a hub name is worth
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        files = ["*.json", "*.txt", "*.jinja", *["*.safetensors"] * with_weights]
        return Path(snapshot_download(path, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model {path} (no such folder here, so taken for a hub name) cannot be fetched: {reason}; "
            "it must exist; correct the name"
        ) from error


def find_model_folder(path: str) -> Path | None:
    """The folder of a model that is here already; None for a hub name. Raises ModelError for what is neither."""
    if (folder := named_folder(path)).is_dir():
        return folder
    if not is_hub_name(path):
        raise ModelError(
            f"model {path!r} is no folder; a model is a folder, a hub name owner/name or miniature; correct the name"
        )
    return None


def named_folder(path: str) -> Path:
    """The folder that a model's name means when it is no hub name; it need not be there."""
    return base_model_folder() if path == MINIATURE else Path(path).expanduser().absolute()


def is_hub_name(path: str) -> bool:
    """Whether it has the form owner/name."""
    return _HUB_NAME.fullmatch(path) is not None


def check_model_name(path: str, own_family: str = "") -> None:
    """Raise ModelError when a name means nothing, or a folder that is here is no model; the hub is not asked."""
    if (folder := find_model_folder(path)) is not None:
        check_model_folder(folder, own_family)


def folder_family(folder: Path, own_family: str = "") -> ModelFamily:
    """The family of the model in a folder; raises ModelError when it is of none that is known."""
    return find_family(read_json(folder / "config.json"), str(folder), own_family)


def check_model_folder(folder: Path, own_family: str = "") -> None:
    """Whether the parts are there, of a known family, and every token has an embedding; raises ModelError."""
    _check_part(folder, "configuration")
    config = read_json(folder / "config.json")
    family = find_family(config, str(folder), own_family)
    for part in ("tokenizer", "processor", "weights") if family.image_token else ("tokenizer", "weights"):
        _check_part(folder, part)
    tokens = _token_ids(folder)
    num_rows = _num_embedding_rows(folder, config, family)
    largest = max(tokens, key=tokens.__getitem__)
    if tokens[largest] >= num_rows:
        raise ModelError(
            f"model folder {folder} has {num_rows} embedding rows but its tokenizer goes up to id {tokens[largest]} "
            f"({largest!r}); every token has a row; use the tokenizer that the model was trained with"
        )
    image_id = config.get("image_token_id")
    if family.image_token and (image_id is None or image_id != tokens.get(family.image_token)):
        raise ModelError(
            f"model folder {folder} has image_token_id {image_id} but its tokenizer has {family.image_token} at "
            f"{tokens.get(family.image_token)}; they are the same; use the tokenizer that the model was trained with"
        )


def _check_part(folder: Path, part: str) -> None:
    choices = _REQUIRED[part]
    if not any(all((folder / name).is_file() for name in names) for names in choices):
        wanted = " or ".join(" and ".join(names) for names in choices)
        raise ModelError(
            f"model folder {folder} has no {part}; it holds {wanted}; save the {part} there or correct model.path"
        )


def check_context(folder: Path, max_length: int) -> None:
    """Raise ModelError when the model has fewer positions than `model.max_length`: an engine says so much later."""
    config = read_json(folder / "config.json")
    positions = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    if positions is not None and max_length > positions:
        raise ModelError(
            f"model.max_length is {max_length} but the model in {folder} has {positions} positions; prompt and "
            "completion fit into them; lower model.max_length"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ModelError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model file {path} cannot be read: {reason}; it holds JSON; restore it") from error
    if not isinstance(content, dict):
        raise ModelError(f"model file {path} holds a {type(content).__name__}; it holds a JSON object; restore it")
    return content


def _token_ids(folder: Path) -> dict[str, int]:
    """Every token of the tokenizer, added ones included."""
    if (folder / "tokenizer.json").is_file():
        content = read_json(folder / "tokenizer.json")
        vocabulary = content.get("model", {}).get("vocab", {})
        added = {entry["content"]: entry["id"] for entry in content.get("added_tokens", ())}
    else:
        vocabulary, added = read_json(folder / "vocab.json"), _added_tokens(folder)
    tokens = {**(vocabulary if isinstance(vocabulary, dict) else {}), **added}
    if not tokens:
        raise ModelError(f"model folder {folder} has a tokenizer without tokens; it needs some; restore the tokenizer")
    return tokens


def _added_tokens(folder: Path) -> dict[str, int]:
    path = folder / "tokenizer_config.json"
    entries = read_json(path).get("added_tokens_decoder", {}) if path.is_file() else {}
    return {entry["content"]: int(token_id) for token_id, entry in entries.items()}


def _num_embedding_rows(folder: Path, config: Mapping[str, Any], family: ModelFamily) -> int:
    """Rows of the input embedding by the weights' header; they must agree with the configuration."""
    shape = _embedding_shape(folder, family)
    declared = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    if declared is not None and declared != shape[0]:
        raise ModelError(
            f"model folder {folder} declares vocab_size {declared} but its embedding has {shape[0]} rows; they are the "
            "same; restore config.json or the weights"
        )
    return shape[0]


def _embedding_shape(folder: Path, family: ModelFamily) -> list[int]:
    index_path = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if not (folder / files[0]).is_file():
        weight_map = read_json(index_path).get("weight_map", {})
        files = sorted({file for name, file in weight_map.items() if name.endswith(_EMBEDDING_ENDING)})
        missing = sorted(file for file in set(weight_map.values()) if not (folder / file).is_file())
        if missing:
            raise ModelError(
                f"model folder {folder} lacks {missing[0]} ({len(missing)} files in all); every file of the index is "
                "there; download it again"
            )
    for file in files:
        for name, tensor in _stored_tensors(folder / file).items():
            if name.endswith(_EMBEDDING_ENDING) and "visual" not in name:
                return list(tensor.shape)
    raise ModelError(
        f"model folder {folder} has no tensor named *.{_EMBEDDING_ENDING}; a {family.name} has; correct model.path"
    )


def _stored_tensors(path: Path) -> Mapping[str, TensorRef]:
    try:
        return read_header(path)
    except CheckpointError as error:
        raise ModelError(f"weights cannot be read: {error}") from error
