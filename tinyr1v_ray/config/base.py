"""How a settings tree is declared and read: pydantic models, YAML, then `key=value` overrides.

A setting has one default, in its schema. Nothing is interpolated and nothing is ignored: an unknown key is an
error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from yaml import YAMLError

from tinyr1v_ray.config.shipped import shipped_config
from tinyr1v_ray.errors import ConfigError

MAX_ACTORS = 4096
"""Largest number of actors of one kind; a plan of them is made in a second or two."""
MAX_SEED = 2**32 - 1
"""Largest seed that every generator here takes."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]
ActorCount = Annotated[int, Field(ge=1, le=MAX_ACTORS)]
_UNREADABLE = (YAMLError, OmegaConfBaseException, ValueError, RecursionError)
"""What reading YAML raises: bad syntax, bytes that are no text, numbers of thousands of digits, endless nesting."""
_RENAMED = {
    r"^(merge\.)?recipes\b": r"\1methods",
    r"^recipe\b": "method",
    r"^(method|(merge\.)?methods\.[^.]+)\.method$": r"\1.name",
}
"""Keys in files of older versions -> today's; those of user's sections by their place."""


class Settings(BaseModel):
    """Base of every section: frozen, unknown keys forbidden, attribute docstrings become the descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if not _is_numeric(cls.model_fields[str(info.field_name)].annotation):
            return value
        inner = list(value.values()) if isinstance(value, Mapping) else value
        for each in inner if isinstance(inner, list | tuple) else (inner,):
            if isinstance(each, bool):
                raise PydanticCustomError("bool_for_number", "Input should be a number, not true or false")
            if isinstance(each, int) and abs(each) >= 2**63:
                raise PydanticCustomError("number_too_large", "Input should be below 2^63")
        return value


def _is_numeric(annotation: Any) -> bool:
    """Whether a field holds numbers, alone or several, and no truth value.

    >>> _is_numeric(int | None), _is_numeric(tuple[float, ...]), _is_numeric(Literal[0, 2]), _is_numeric(bool)
    (True, True, True, False)
    """
    kinds = set(_kinds(annotation))
    return bool(kinds & {int, float}) and not kinds & {bool, Any}


def _kinds(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from (type(choice) for choice in get_args(annotation))
    elif inner := get_args(annotation):
        for each in inner:
            yield from _kinds(each)
    else:
        yield annotation


SchemaT = TypeVar("SchemaT", bound=Settings)


def load_settings(schema: type[SchemaT], path: Path | None, overrides: Sequence[str] = ()) -> SchemaT:
    """Read `path` (YAML; None for the defaults alone), apply `key.sub=value` overrides in order, validate.

    Raises ConfigError when the file is missing or not a mapping, an override has no `=`, a key is unknown, or a
    value has the wrong type or range.
    """
    return parse_settings(schema, {} if path is None else read_yaml(path), overrides)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, or in the shipped configuration of that name, as plain Python objects."""
    if (shipped := shipped_config(path)) and not path.exists():
        path = shipped
    if seen := _why_no_file(path):
        raise ConfigError(
            f"config file {shortened(str(path))} {seen}; --config names a YAML file or one of "
            "tinyr1v configs list; correct it"
        )
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, *_UNREADABLE) as error:
        raise ConfigError(
            f"config file {shortened(str(path))} cannot be read: {_reason(error)}; a config is a YAML mapping; fix it"
        ) from error
    if not isinstance(tree, dict):
        raise ConfigError(f"config file {path} holds a {type(tree).__name__}; a config is a YAML mapping; fix it")
    return {str(key): value for key, value in tree.items()}


def _why_no_file(path: Path) -> str:
    """What a path is that cannot be read as a file; empty for one that may."""
    try:
        if path.is_dir():
            return "is a folder"
        return "" if path.is_file() else "is no plain file" if path.exists() else "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _reason(error: BaseException) -> str:
    """Of a file or text that cannot be read, in one short line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror is None:  # OmegaConf's way of saying that a number stands alone
        return "it holds a single value"
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return shortened(" ".join(str(reason).split()), 600)


def shortened(text: str, most: int = 200) -> str:
    """A text with its middle left out when it is longer than `most` characters.

    >>> shortened("a" * 50 + "b" * 50, 20)
    'aaaaaaaa ... bbbbbbb'
    """
    if len(text) <= most:
        return text
    rest = most - 5
    return f"{text[: rest - rest // 2]} ... {text[len(text) - rest // 2 :]}"


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


def parse_settings(schema: type[SchemaT], tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> SchemaT:
    """Validate a plain mapping after applying `key.sub=value` overrides; raises ConfigError."""
    try:
        return schema.model_validate(apply_overrides(tree, overrides))
    except ValidationError as error:
        raise ConfigError(_first_problem(schema, error)) from error


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The mapping with `key.sub=value` overrides put over it in order, not validated; raises ConfigError."""
    for override in overrides:
        _check_override(override)
    try:
        merged = OmegaConf.merge(OmegaConf.create(dict(tree)), OmegaConf.from_dotlist(list(overrides)))
        return cast(dict[str, Any], OmegaConf.to_container(merged))
    except (*_UNREADABLE, TypeError) as error:
        given = shortened(str(list(overrides)))
        raise ConfigError(f"overrides {given} cannot be applied: {_reason(error)}; write key.sub=value") from error


def _check_override(override: str) -> None:
    key, separator, _ = override.partition("=")
    seen = shortened(repr(override))
    if not separator or not key.strip():
        raise ConfigError(f"override {seen} has no '='; overrides are key=value; write key.sub=value")
    if not all(part.strip() for part in key.split(".")):
        raise ConfigError(f"override {seen} has a dot without a name beside it; keys are key.sub; write key.sub=value")


def _first_problem(schema: type[Settings], error: ValidationError) -> str:
    """One line about the first problem, and how many more there are."""
    problem = error.errors(include_url=False)[0]
    place = tuple(str(part) for part in problem["loc"])
    key = shortened(".".join(place) if any(place) else "''" if place else "the config")
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        if (old := _first_leaf(place, problem["input"])) != (new := _renamed(schema, old)):
            return f"config: unknown key {shortened(old)}; it is called {shortened(new)}; rename it{more}"
        near = difflib.get_close_matches(key, list(_nearby_keys(schema, place)), n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else "tinyr1v configs show REFERENCE lists the known keys"
        return f"config: unknown key {key}; every key must be known; {remedy}{more}"
    if problem["type"] == "value_error":
        where = f"{key}: " if place else ""
        return f"config: {where}{shortened(problem['msg'].removeprefix('Value error, '), 600)}{more}"
    if problem["type"] == "missing":
        return f"config: {key} is not set; it has no default; set it in the file or as {key}=VALUE{more}"
    rule, seen = problem["msg"][0].lower() + problem["msg"][1:], shortened(repr(problem["input"]))
    return f"config: {key} is {seen}; {rule}; change it in the file or as {key}=VALUE{more}"


def _first_leaf(place: tuple[str, ...], value: Any) -> str:
    """The dotted key of the first setting under a place."""
    while isinstance(value, Mapping) and value:
        key, value = next(iter(value.items()))
        place = (*place, str(key))
    return ".".join(place)


def _renamed(schema: type[Settings], key: str) -> str:
    """What a key of an older version is called today; the key itself where the schema has nothing of that name."""
    new = key
    for pattern, replacement in _RENAMED.items():
        new = re.sub(pattern, replacement, new)
    return new if new.partition(".")[0] in schema.model_fields else key


def known_keys(schema: type[Settings], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a schema, sections included."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from known_keys(field.annotation, prefix + name + ".")


def _nearby_keys(schema: type[Settings], place: tuple[str, ...], prefix: str = "") -> Iterator[str]:
    """`known_keys`, and those below the name at `place` where names are the user's (`merge.methods.NAME.name`)."""
    yield from known_keys(schema, prefix)
    field = schema.model_fields.get(place[0]) if place else None
    inner = get_args(field.annotation) if field else ()
    if field and isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
        yield from _nearby_keys(field.annotation, place[1:], f"{prefix}{place[0]}.")
    elif len(place) > 1 and inner and isinstance(inner[-1], type) and issubclass(inner[-1], Settings):
        yield from _nearby_keys(inner[-1], place[2:], f"{prefix}{place[0]}.{place[1]}.")


def write_settings(settings: Settings, path: Path) -> None:
    """Write the resolved settings as YAML, every default spelled out."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(settings.model_dump(mode="json"))), encoding="utf-8")
