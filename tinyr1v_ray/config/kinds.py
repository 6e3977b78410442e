"""Which kind of configuration a file holds, by what only that kind has, and what goes with each kind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyr1v_ray.config.base import parse_settings, read_yaml
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import ConfigError

TELLING_KEYS = {"recipe": "trainings", "merge": "experts", "evaluate": "benchmarks", "train": "run"}
"""Kind -> the top-level key that it cannot lack; asked in this order."""
AnyConfig = TrainConfig | MergeConfig | EvaluateConfig | PipelineConfig
SCHEMAS: Mapping[str, type[AnyConfig]] = {
    "recipe": PipelineConfig,
    "merge": MergeConfig,
    "evaluate": EvaluateConfig,
    "train": TrainConfig,
}
OUTPUT_KEYS = {"recipe": "folder", "merge": "output", "evaluate": "output", "train": "run.folder"}
"""Kind -> the setting that says where it writes."""


def kind_of_config(tree: Mapping[str, Any], name: str) -> str:
    """train, merge, evaluate or recipe; raises ConfigError."""
    for kind, key in TELLING_KEYS.items():
        if key in tree:
            return kind
    keys = ", ".join(f"{key} ({kind})" for kind, key in TELLING_KEYS.items())
    raise ConfigError(
        f"config file {name} has none of the keys {keys}; one of them tells its kind; name a configuration of this "
        "package, such as one of tinyr1v configs list"
    )


def read_config(path: Path, overrides: Sequence[str]) -> AnyConfig:
    """The settings in a file of any kind; raises ConfigError."""
    tree = read_yaml(path)
    return parse_settings(SCHEMAS[kind_of_config(tree, str(path))], tree, overrides)


def output_of(kind: str, tree: Mapping[str, Any]) -> Any:
    """Where unchecked settings say that results go; None where they do not.

    >>> output_of("train", {"run": {"folder": "runs"}}), output_of("merge", {})
    ('runs', None)
    """
    found: Any = tree
    for part in OUTPUT_KEYS[kind].split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def values_at(tree: Mapping[str, Any], keys: Collection[str]) -> Iterator[Any]:
    """What stands under one of the keys, wherever in the tree."""
    for key, value in tree.items():
        if key in keys:
            yield value
        if isinstance(value, Mapping):
            yield from values_at(value, keys)
