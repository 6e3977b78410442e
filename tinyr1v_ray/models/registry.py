"""The families that can be trained, told apart by `architectures` in a model's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tinyr1v_ray.config.custom_function import load_function
from tinyr1v_ray.errors import ConfigError, ModelError
from tinyr1v_ray.models.family import ModelFamily
from tinyr1v_ray.models.qwen2_5_vl import Qwen25VL
from tinyr1v_ray.models.qwen2_vl import Qwen2VL
from tinyr1v_ray.models.qwen3_vl import Qwen3VL
from tinyr1v_ray.models.qwen_text import Qwen3, Qwen25
from tinyr1v_ray.models.smolvlm import SmolVLM

FAMILIES: tuple[ModelFamily, ...] = (
    Qwen25VL(),
    Qwen2VL(),
    Qwen3VL(),
    SmolVLM(),
    Qwen25(),
    Qwen3(),
)


def find_family(config: Mapping[str, Any], owner: str, own: str = "") -> ModelFamily:
    """The family of a model by its config.json; `own` is the setting `model.family`, a custom one beside FAMILIES.

    `owner` is what messages call the model. Raises ModelError for a model of no known family.
    """
    families = (*FAMILIES, own_family(own)) if own else FAMILIES
    architectures = config.get("architectures") or ()
    for family in reversed(families):
        if set(architectures) & set(family.architectures):
            return family
    seen = f"has the architecture {', '.join(map(str, architectures))}" if architectures else "names no architecture"
    if "moe" in str(architectures).lower():
        seen += ", a mixture of experts, which no test has trained,"
    known = ", ".join(f"{family.name} ({', '.join(family.architectures)})" for family in families)
    raise ModelError(
        f"model {owner} {seen} in its config.json; known are {known}; name a model of these, or set model.family to a "
        "family of your own"
    )


@lru_cache
def own_family(path: str) -> ModelFamily:
    """An object of the class at `package.module:class`; raises ConfigError when it is no family."""
    family = load_function("model.family", path)()
    if not isinstance(family, ModelFamily):
        wanted = sorted(name for name in dir(ModelFamily) if not name.startswith("_"))
        wanted = sorted({*wanted, *ModelFamily.__annotations__})
        missing = ", ".join(name for name in wanted if not hasattr(family, name))
        raise ConfigError(f"model.family {path} lacks {missing}; a family has all of ModelFamily's; add them")
    return family
