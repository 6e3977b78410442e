"""Which config.json says the shapes of a model that a plan names; no weights are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from inspect import getsourcefile
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from pydantic import TypeAdapter, ValidationError

from tinyr1v_ray.config.folders import default_cache_folder
from tinyr1v_ray.data.model_folder import is_hub_name, named_folder, read_json
from tinyr1v_ray.errors import ModelError
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.models.registry import FAMILIES, find_family
from tinyr1v_ray.models.shape import ModelShape, count_shape

KNOWN: Mapping[str, Mapping[str, Any]] = {
    name: {"architectures": list(family.architectures), **config}
    for family in FAMILIES
    for name, config in family.published.items()
}
"""Hub name -> its config.json, as far as it sets shapes: a plan needs no download."""
_SHAPE = TypeAdapter(ModelShape)


def find_shape(path: str, fallback: str = "", own_family: str = "") -> ModelShape:
    """Shapes of `miniature`, a local folder, a hub name that is cached here, or one of KNOWN.

    `fallback` names the model that stands in where `path` is not there yet; without it, a folder in runs/ or models/
    whose name says a known size (`runs/tiny_r1v_3b`) gets that model's. `own_family` is the setting `model.family`.
    Raises ModelError for a name that nothing here knows.
    """
    folder = named_folder(path)
    if (folder / "config.json").is_file():
        return shape_from_config(path, read_json(folder / "config.json"), own_family)
    if path in KNOWN:
        return shape_from_config(path, KNOWN[path])
    if cached := _cached_config(path):
        return shape_from_config(path, read_json(cached), own_family)
    if stands_in := fallback or _named_size(path):
        return find_shape(stands_in, own_family=own_family)
    raise ModelError(
        f"model {path!r} is no folder with a config.json, is not in the hub's cache here and not one of "
        f"{', '.join(KNOWN)}; a plan needs the model's shapes; download its config.json (hf download {path} "
        "config.json) or name a folder"
    )


def stand_in_note(path: str, shape: ModelShape) -> tuple[str, ...]:
    """What to tell of a model whose shapes are another's."""
    return () if shape.name == path else (f"{path} is not here yet: planned with the shapes of {shape.name}",)


def _named_size(path: str) -> str:
    """The known model of the size that a folder's name says, for models that are yet to be made: runs/tiny_r1v_3b."""
    size = re.search(r"(?<![A-Za-z0-9])(\d+)[bB](?![A-Za-z0-9])", Path(path).name)
    if size is None or is_hub_name(path):  # another model: its size alone says nothing of its shapes
        return ""
    return next((name for name in KNOWN if f"-{size[1]}B-" in name), "")


def _cached_config(name: str) -> Path | None:
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def shape_from_config(name: str, config: Mapping[str, Any], own_family: str = "") -> ModelShape:
    """Shapes by the content of a config.json; raises ModelError."""
    return _counted(name, json.dumps(config), own_family)


@lru_cache(maxsize=64)
def _counted(name: str, config: str, own_family: str) -> ModelShape:
    """Counted once and kept in the cache folder: transformers, which counts, takes seconds to load.

    What is kept is good for this config.json, this release of transformers and this family's file.
    """
    content = json.loads(config)
    family = find_family(content, name, own_family)
    sources = [Path(str(getsourcefile(each))).read_text(encoding="utf-8") for each in (type(family), ModelShape)]
    key = hashlib.sha256(json.dumps([config, version("transformers"), *sources]).encode()).hexdigest()
    path = default_cache_folder() / "shapes" / f"{key[:32]}.json"
    with contextlib.suppress(OSError, ValidationError):
        return replace(_SHAPE.validate_json(path.read_bytes()), name=name)
    shape = count_shape(name, content, family)
    with contextlib.suppress(OSError):  # a full disk costs seconds, not the plan
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, _SHAPE.dump_json(shape))
    return shape
