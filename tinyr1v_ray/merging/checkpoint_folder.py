"""A model folder, opened lazily: its config and the place of each tensor, in one file or several; no value is read."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tinyr1v_ray.errors import CheckpointError, ModelError
from tinyr1v_ray.files.safetensors_file import TensorRef, lacks_content, read_header
from tinyr1v_ray.merging.model_settings import is_tied
from tinyr1v_ray.merging.names import EMBEDDING, HEAD, LANGUAGE, canonical_names

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class FullCheckpoint:
    """A full checkpoint. `tensors` is keyed by canonical name; a ref keeps the stored one."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, TensorRef]

    @property
    def files(self) -> list[Path]:
        return sorted({Path(ref.path) for ref in self.tensors.values()})

    @cached_property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return is_tied(self.config)


def open_checkpoint(path: Path) -> FullCheckpoint:
    """Read config.json and all headers; raises ModelError or CheckpointError with the file that is at fault.

    Under a tied config a head that is stored without the embedding is opened as the embedding.
    """
    if not path.is_dir():
        raise ModelError(f"{path} is no folder; a model is a folder with config.json and safetensors; check the path")
    config = read_json(path / CONFIG)
    stored = _stored_tensors(path)
    names = canonical_names(stored, str(path))
    folder = FullCheckpoint(path, config, {canonical: stored[name] for canonical, name in names.items()})
    if HEAD in folder.tensors and EMBEDDING not in folder.tensors and folder.tied:
        return replace(folder, tensors=_with_head_as_embedding(folder.tensors))
    return folder


def _with_head_as_embedding(tensors: dict[str, TensorRef]) -> dict[str, TensorRef]:
    """Of two tied tensors some savers keep the head alone. It is the embedding, in the layout of the others' names."""
    prefix = "model."
    for canonical, ref in tensors.items():
        inner = canonical.removeprefix(LANGUAGE)
        if inner != canonical and ref.name.endswith(inner):
            prefix = ref.name.removesuffix(inner)
            break
    embedding = replace(tensors[HEAD], name=prefix + EMBEDDING.removeprefix(LANGUAGE))
    return {
        (EMBEDDING if name == HEAD else name): (embedding if name == HEAD else ref) for name, ref in tensors.items()
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping; raises ModelError naming the file."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); a model folder needs it; add it") from error
    if reason := lacks_content(raw):
        raise ModelError(f"{path} {reason}")
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); a model folder needs it; fetch it again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}; it must be a JSON mapping; fetch it again")
    return value


def holds_weights(path: Path) -> bool:
    """Whether the folder has a full model's weights, in one file or several."""
    return (path / SINGLE).is_file() or (path / INDEX).is_file()


def _stored_tensors(path: Path) -> dict[str, TensorRef]:
    """A folder holds one checkpoint: a file and an index that does not name it are two, and readers differ in which
    one they take."""
    if (path / INDEX).is_file():
        weight_map = _weight_map(path / INDEX)
        if (path / SINGLE).is_file() and SINGLE not in weight_map.values():
            raise _two_checkpoints(path, sorted(set(weight_map.values())))
        return _sharded(path, weight_map)
    if (path / SINGLE).is_file():
        return read_header(path / SINGLE)
    if any(path.glob("pytorch_model*.bin")):
        raise ModelError(f"{path} holds pickled weights (.bin); only safetensors are read; save it as safetensors")
    raise ModelError(f"{path} has neither {SINGLE} nor {INDEX}; a model folder needs one of them; fetch the weights")


def _two_checkpoints(path: Path, shards: list[str]) -> CheckpointError:
    missing = [shard for shard in shards if not (path / shard).is_file()]
    if missing:
        return CheckpointError(
            f"{path / INDEX} is stale: it names {missing[0]}, which is not there, beside {SINGLE}, which it does not "
            f"name; a folder holds one checkpoint; remove the index if {SINGLE} is the model"
        )
    return CheckpointError(
        f"{path} holds two checkpoints, {SINGLE} and the {len(shards)} shards of {INDEX}; a folder holds one, and "
        "programs differ in which they read; move the one that is not meant elsewhere"
    )


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; an index maps tensors to shards; fetch it again")
    return {str(name): str(shard) for name, shard in weight_map.items()}


def _sharded(path: Path, weight_map: dict[str, str]) -> dict[str, TensorRef]:
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if not (path / shard).is_file():
            raise CheckpointError(f"{path / shard} is missing; {INDEX} names it; fetch that shard")
    tensors: dict[str, TensorRef] = {}
    found: dict[str, str] = {}
    for shard in shards:
        for name, ref in read_header(path / shard).items():
            if name in tensors:
                raise CheckpointError(
                    f"{path}: {name} lies in {found[name]} and in {shard}; a tensor has one place; fetch both shards "
                    "and the index again"
                )
            tensors[name], found[name] = ref, shard
    for name, shard in found.items():
        if weight_map.get(name) != shard:
            says = f"names {weight_map[name]}" if name in weight_map else "has no entry"
            raise CheckpointError(
                f"{path / INDEX} {says} for {name}, which is in {shard}; index and shards must agree; fetch both again"
            )
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise CheckpointError(
            f"{path / weight_map[missing[0]]} does not hold {missing[0]}, which {INDEX} says it does; "
            "index and shards must agree; fetch both again"
        )
    return tensors
