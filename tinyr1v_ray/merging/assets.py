"""Everything in a model folder but the weights: config, generation config, processor, tokenizer, chat template.

They come from one declared donor. Where another model says something else the report says so; what would change how
the weights are used (architecture, vocabulary) is an error. The end-of-sequence ids of all models are united, because
an export that lost one of two makes generation run on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyr1v_ray.errors import ConfigError, MergeError, ModelError
from tinyr1v_ray.files.safetensors_file import lacks_content
from tinyr1v_ray.merging.accounting import Expert
from tinyr1v_ray.merging.checkpoint_folder import CONFIG, FullCheckpoint, read_json
from tinyr1v_ray.merging.lora import AdapterFolder
from tinyr1v_ray.merging.model_settings import differing, written_settings

_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_STEMS = (
    "tokenizer", "preprocessor_config", "processor_config", "video_preprocessor_config", "image_processor",
    "feature_extractor", "chat_template", "special_tokens_map", "added_tokens", "vocab", "merges", "spiece",
    "sentencepiece", "qwen",
)  # fmt: skip
"""What else lies in a model folder (training logs, the donor's own scores) would be untrue of the merged model."""
_ARCHITECTURE_KEYS = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "num_heads", "head_dim", "rms_norm_eps", "hidden_act", "patch_size", "spatial_merge_size", "temporal_patch_size",
    "window_size", "fullatt_block_indexes", "vocab_size",
)  # fmt: skip
_COMPARED_FILES = (
    "chat_template.json", "chat_template.jinja", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


def choose_donor(donor: str, base: Path, experts: Sequence[Path]) -> Path:
    """`base`, or the number of an expert that is a full model folder; raises ConfigError."""
    if donor == "base":
        return base
    if not donor.isdigit() or int(donor) >= len(experts):
        raise ConfigError(f"donor is {donor!r}; it is 'base' or an expert's number below {len(experts)}; change donor")
    folder = experts[int(donor)]
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"donor {donor} is {folder}, which has no config.json; a donor is a full model; change donor")
    return folder


def check_architectures(base: FullCheckpoint, experts: Sequence[Expert]) -> None:
    """Raise MergeError where an expert's config would use the same weights differently, or ties them differently."""
    own = _flat(base.config)
    for expert in experts:
        if not isinstance(expert, FullCheckpoint):
            continue
        theirs = _flat(expert.config)
        for key in sorted(own.keys() & theirs.keys()):
            if key.rpartition(".")[2] in _ARCHITECTURE_KEYS and own[key] != theirs[key]:
                raise MergeError(
                    f"{expert.path}: config {key} is {theirs[key]!r} where the base has {own[key]!r}; "
                    "architectures must be equal; check that it was trained from this base"
                )
        for key, (ours, other) in differing(base.config, expert.config, "positions").items():
            raise MergeError(
                f"{expert.path}: config {key} is {other!r} where the base has {ours!r}; one model has one way to "
                "tell positions; check that it was trained from this base, or give both the setting that you want"
            )
        if expert.tied != base.tied:
            raise MergeError(
                f"{expert.path} has tie_word_embeddings {expert.tied} where the base has {base.tied}; one head would "
                "be lost; tie or untie both"
            )


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys. Text settings at the root (the older layout) are brought under text_config."""
    nested = {}
    for key, value in config.items():
        if isinstance(value, dict):
            nested.update(_flat(value, f"{prefix}{key}."))
        elif prefix or key == "model_type":
            nested[prefix + key] = value
        else:
            nested[f"text_config.{key}"] = value
    return nested


def check_vocabularies(base: Path, experts: Sequence[Path]) -> None:
    """Raise MergeError where an expert's tokenizer gives other ids to tokens than the base's."""
    own = _vocabulary(base)
    for folder in experts:
        theirs = _vocabulary(folder)
        if own is None or theirs is None or own == theirs:
            continue
        changed = sorted(token for token in own.keys() | theirs.keys() if own.get(token) != theirs.get(token))
        raise MergeError(
            f"{folder} has another vocabulary: {len(changed)} tokens differ, among them {changed[0]!r} "
            f"(base {own.get(changed[0])}, expert {theirs.get(changed[0])}); vocabularies must be equal; "
            "train from this base's tokenizer"
        )


def _vocabulary(folder: Path) -> dict[str, int] | None:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer = read_json(path)
    stored = (tokenizer.get("model") or {}).get("vocab") or {}
    items = stored.items() if isinstance(stored, dict) else ((piece[0], index) for index, piece in enumerate(stored))
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
    return {**dict(items), **added}


def conflicts(donor: Path, others: Sequence[Path]) -> list[str]:
    """One line per file that another model has differently from the donor (compared as JSON where it is JSON), and per
    model whose config has other special tokens."""
    lines = []
    for name in _COMPARED_FILES:
        for folder in others:
            theirs, own = folder / name, donor / name
            if folder == donor or not theirs.is_file():
                continue
            if not own.is_file():
                lines.append(f"{name}: {folder} has one, the donor {donor} has none")
            elif _content(theirs) != _content(own):
                lines.append(f"{name}: {folder} differs from the donor {donor}, whose version is used")
    return lines + _other_tokens(donor, [folder for folder in others if folder != donor])


def _other_tokens(donor: Path, others: Sequence[Path]) -> list[str]:
    own = read_json(donor / CONFIG)
    lines = []
    for folder in others:
        found = differing(own, read_json(folder / CONFIG), "token_ids") if (folder / CONFIG).is_file() else {}
        if found:
            ids = ", ".join(f"{key} {theirs} (donor {ours})" for key, (ours, theirs) in found.items())
            lines.append(f"{CONFIG}: {folder} has {ids}; the donor's are used, and all ends of sequence")
    return lines


def other_bases(names: Sequence[str], experts: Sequence[Expert]) -> list[str]:
    """One line per adapter that by its own word was trained from another model than the base, which goes by `names`.

    A model is called by a hub's name here and by a folder there, so the last part is what is compared.
    """
    own = {_short(name) for name in names if name}
    return [
        f"{expert.path} was trained from {expert.trained_from}, which is not the base {names[0]} by its name; a delta "
        "is added to the weights that it was trained on"
        for expert in experts
        if isinstance(expert, AdapterFolder) and expert.trained_from and _short(expert.trained_from) not in own
    ]


def describe_model(model: Expert) -> dict[str, Any]:
    """What a model says of itself beside its weights."""
    if isinstance(model, AdapterFolder):
        return {"path": str(model.path), "trained_from": model.trained_from}
    settings = written_settings(model.config)
    return {"path": str(model.path), "positions": settings.positions, "token_ids": settings.token_ids}


def _short(name: str) -> str:
    """The last part of a hub's name or of a path, in a hub's cache that of the model's.

    >>> _short("Qwen/Qwen2.5-VL-3B-Instruct"), _short("/hub/models--Qwen--Qwen2.5-VL-3B-Instruct/snapshots/66285546")
    ('qwen2.5-vl-3b-instruct', 'qwen2.5-vl-3b-instruct')
    """
    parts = Path(name).parts
    cached = next((part for part in parts if part.startswith("models--")), parts[-1] if parts else "")
    return cached.rpartition("--")[2].casefold()


def _content(path: Path) -> Any:
    raw = _whole(path)
    if path.suffix == ".json":
        try:
            return json.loads(raw)
        except ValueError as error:
            raise ModelError(f"{path} is not valid JSON ({error}); a model's files must be; fetch it again") from error
    return raw


def end_of_sequence_ids(folders: Sequence[Path]) -> list[int]:
    """Every EOS id that any model names, in order of appearance: its generation config's, or else its config's."""
    found: dict[int, None] = {}
    for folder in folders:
        for name in ("generation_config.json", CONFIG):
            ids = _eos_of(folder / name)
            if ids:
                found.update(dict.fromkeys(ids))
                break
    return list(found)


def _eos_of(path: Path) -> list[int]:
    if not path.is_file():
        return []
    config = read_json(path)
    value = config.get("eos_token_id", (config.get("text_config") or {}).get("eos_token_id"))
    return [i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)]


def make_assets(donor: Path, others: Sequence[Path], output_dtype: str) -> dict[str, bytes]:
    """The merged model's files, name -> content: the donor's, with the output's type and the end ids of `others`."""
    made = {
        source.name: _whole(source)
        for source in sorted(donor.iterdir())
        if source.is_file() and source.suffix in _SUFFIXES and source.name.startswith(_STEMS)
    }
    made[CONFIG] = _as_json(_with_dtype(read_json(donor / CONFIG), output_dtype))
    path = donor / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    ids = end_of_sequence_ids([donor, *others])
    if ids:
        generation["eos_token_id"] = ids if len(ids) > 1 else ids[0]
    if generation:
        made["generation_config.json"] = _as_json(generation)
    return made


def _whole(path: Path) -> bytes:
    """A file that is copied as it is; raises ModelError for a git-LFS pointer. An empty one is nobody's mistake here:
    slow tokenizers have empty lists of merges."""
    content = path.read_bytes()
    if content and (reason := lacks_content(content)):
        raise ModelError(f"{path} {reason}")
    return content


def _with_dtype(config: dict[str, Any], output_dtype: str) -> dict[str, Any]:
    """The config with its weights' type, under the key that the donor uses, nested sections included."""
    result = {key: _with_nested(value, output_dtype) for key, value in config.items()}
    result["torch_dtype" if "torch_dtype" in config else "dtype"] = output_dtype
    return result


def _with_nested(value: Any, output_dtype: str) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        k: output_dtype if k in ("dtype", "torch_dtype") else _with_nested(v, output_dtype) for k, v in value.items()
    }


def _as_json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
