"""The configuration reference: every setting of every command with type, default and meaning, from the schema alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tinyr1v_ray.config.base import Settings
from tinyr1v_ray.config.benchmark import UserBenchmarkSettings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.merge import MergeConfig, MethodConfig
from tinyr1v_ray.config.pipeline import PipelineConfig, TrainingSettings
from tinyr1v_ray.config.train import TrainConfig

SCHEMAS: dict[str, type[Settings]] = {
    "tinyr1v run": PipelineConfig,
    "tinyr1v train": TrainConfig,
    "tinyr1v merge": MergeConfig,
    "tinyr1v evaluate": EvaluateConfig,
}
ENTRIES: dict[str, type[Settings]] = {
    "trainings.NAME (tinyr1v run)": TrainingSettings,
    "methods.NAME (tinyr1v merge), merge.methods.NAME (tinyr1v run)": MethodConfig,
    "user.NAME (tinyr1v evaluate)": UserBenchmarkSettings,
}
"""Sections whose names the user chooses."""

_HEAD = """# Configuration reference

Made from the schema by `make reference`; the suite fails when the two differ. A setting is written in the YAML file or
as `key=value` behind the command. Every default is here.
"""


def reference() -> str:
    """The whole reference as Markdown: a chapter a command, a table a section."""
    chapters = [_HEAD]
    for title, schema in (SCHEMAS | ENTRIES).items():
        chapters.append(f"## {title}\n\n{_first_line(schema)}\n")
        chapters += _tables(schema, "")
    return "\n".join(chapters)


def _tables(schema: type[Settings], prefix: str) -> Iterator[str]:
    """The section's own settings, then those of its sections."""
    own = [(name, field) for name, field in schema.model_fields.items() if _section(field) is None]
    if own:
        rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
        rows += [_row(prefix + name, field) for name, field in own]
        yield "\n".join(rows) + "\n"
    for name, field in schema.model_fields.items():
        section = _section(field)
        if section is not None:
            yield f"### `{prefix}{name}`\n\n{_first_line(section)}\n"
            yield from _tables(section, f"{prefix}{name}.")


def _row(key: str, field: FieldInfo) -> str:
    cells = [f"`{key}`", _type(field), _default(field), " ".join((field.description or "").split())]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _section(field: FieldInfo) -> type[Settings] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def _type(field: FieldInfo) -> str:
    """The type in words, and the bounds that pydantic keeps beside it."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    rules = [(rule, name) for rule in field.metadata for name in signs if getattr(rule, name, None) is not None]
    bounds = [(signs[name], getattr(rule, name)) for rule, name in rules]
    shown = [f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}" for sign, bound in bounds]
    return ", ".join([_words(field.annotation), *shown])


def _words(annotation: Any) -> str:
    """
    >>> _words(tuple[int, ...]), _words(Literal["a", "b"]), _words(int | None), _words(dict[str, float])
    ('list of int', 'a or b', 'int or not set', 'mapping of str to float')
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return " or ".join(str(choice) for choice in inner)
    if origin is tuple:
        return f"list of {_words(inner[0])}" + ("" if inner[-1] is ... else f", {len(inner)} of them")
    if origin is dict:
        return f"mapping of {_words(inner[0])} to {_words(inner[1])}"
    if inner:
        return " or ".join("not set" if part is type(None) else _words(part) for part in inner)
    if isinstance(annotation, type):
        return "settings" if issubclass(annotation, Settings) else annotation.__name__
    return "anything"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "none"
    if field.default is PydanticUndefined:
        return "**required**"
    if field.default is None:
        return "not set"
    if isinstance(field.default, tuple):
        return f"`[{', '.join(str(item) for item in field.default)}]`"
    return f"`{field.default}`" if field.default != "" else "empty"


def _first_line(schema: type[Settings]) -> str:
    return (schema.__doc__ or "").strip().splitlines()[0]


def main() -> None:
    """Print the reference; `make reference` writes it to its place."""
    import sys

    sys.stdout.write(reference())


if __name__ == "__main__":
    main()
