"""The settings of a stage, put together of the recipe's sections; some are only the recipe's to set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyr1v_ray.config.base import SchemaT, parse_settings
from tinyr1v_ray.errors import ConfigError


def parsed(schema: type[SchemaT], where: str, *trees: Mapping[str, Any]) -> SchemaT:
    """Later trees over earlier ones, checked; an error says which part of the recipe it is about."""
    merged: dict[str, Any] = {}
    for tree in trees:
        merged = _over(merged, tree, where)
    try:
        return parse_settings(schema, merged)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """One tree over another; raises ConfigError where one has a section and the other a value."""
    merged = dict(lower)
    for name, value in upper.items():
        below = merged.get(name, {})
        if isinstance(value, Mapping) != isinstance(below, Mapping) and name in merged:
            odd, key = below if isinstance(value, Mapping) else value, f"{prefix}{name}"
            raise ConfigError(
                f"{where}: {key} is {str(odd)[:80]!r}; it is a section of settings; write {key}.KEY=VALUE"
            )
        merged[name] = _over(below, value, where, f"{prefix}{name}.") if isinstance(value, Mapping) else value
    return merged


def refuse_owned(where: str, tree: Mapping[str, Any], owned: Mapping[str, str]) -> None:
    """Raise ConfigError for settings that the recipe makes itself, which would have no effect."""
    for key, instead in owned.items():
        found: Any = tree
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is not None:
            raise ConfigError(f"{where}: {key} is set; it is the recipe's own; remove it, and set {instead}")
