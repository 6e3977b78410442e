"""How a settings tree is declared and read: pydantic models, YAML, then `key=value` overrides.

A setting has one default, in its schema. Nothing is interpolated and nothing is ignored: an unknown key is an
error that names the nearest known one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml import YAMLError

from tinyr1v_ray.errors import ConfigError


class Settings(BaseModel):
    """Base of every section: frozen, unknown keys forbidden, attribute docstrings become the descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


SchemaT = TypeVar("SchemaT", bound=Settings)


def load_settings(schema: type[SchemaT], path: Path | None, overrides: Sequence[str] = ()) -> SchemaT:
    """Read `path` (YAML; None for the defaults alone), apply `key.sub=value` overrides in order, validate.

    Raises ConfigError when the file is missing or not a mapping, an override has no `=`, a key is unknown, or a
    value has the wrong type or range.
    """
    return parse_settings(schema, {} if path is None else read_yaml(path), overrides)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, as plain Python objects."""
    if not path.is_file():
        raise ConfigError(f"config file {path} does not exist; --config names a YAML file; see configs/ for examples")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"config file {path} cannot be read: {reason}; a config is a YAML mapping; fix it") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"config file {path} holds a {type(tree).__name__}; a config is a YAML mapping; fix it")
    return {str(key): value for key, value in tree.items()}


def put_over(tree: Mapping[str, Any], values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """A mapping with values put over it by their keys, sections made where they lack; None leaves what is there.

    Something else than a section where one is needed stays, for the schema to refuse. `tree` itself is not changed.

    >>> put_over({"job": {"device": "cpu"}}, {("job", "num_workers"): 2, ("base",): None})
    {'job': {'device': 'cpu', 'num_workers': 2}}
    """
    result = dict(tree)
    for (key, *rest), value in values.items():
        if value is None:
            continue
        inner = result.get(key) or {}
        if not rest:
            result[key] = value
        elif isinstance(inner, Mapping):
            result[key] = put_over(inner, {tuple(rest): value})
    return result


def parse_settings(schema: type[SchemaT], tree: dict[str, Any], overrides: Sequence[str] = ()) -> SchemaT:
    """Validate a plain mapping after applying `key.sub=value` overrides; raises ConfigError."""
    for override in overrides:
        key, separator, _ = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"override {override!r} has no '='; overrides are key=value; write key.sub=value")
    try:
        merged = OmegaConf.merge(OmegaConf.create(tree), OmegaConf.from_dotlist(list(overrides)))
        plain = OmegaConf.to_container(merged)
    except (OmegaConfBaseException, YAMLError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"overrides {list(overrides)} cannot be applied: {reason}; write key.sub=value") from error
    try:
        return schema.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(_first_problem(schema, error)) from error


def _first_problem(schema: type[Settings], error: ValidationError) -> str:
    """One line about the first problem, and how many more there are."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"]) or "the config"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(known_keys(schema)), n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else "see configs/REFERENCE.md for the known keys"
        return f"config: unknown key {key}; every key must be known; {remedy}{more}"
    if problem["type"] == "value_error":
        return f"config: {key}: {problem['msg'].removeprefix('Value error, ')}{more}"
    if problem["type"] == "missing":
        return f"config: {key} is not set; it has no default; set it in the file or as {key}=VALUE{more}"
    rule = problem["msg"][0].lower() + problem["msg"][1:]
    return f"config: {key} is {problem['input']!r}; {rule}; change it in the file or as {key}=VALUE{more}"


def known_keys(schema: type[Settings], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a schema, sections included."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from known_keys(field.annotation, prefix + name + ".")


def write_settings(settings: Settings, path: Path) -> None:
    """Write the resolved settings as YAML, every default spelled out."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(settings.model_dump(mode="json"))), encoding="utf-8")
