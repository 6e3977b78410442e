"""What a plan is: problems, the nearest change that removes them, sections to read, and figures to compute with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyr1v_ray.cluster.shape import ClusterShape


@dataclass(frozen=True)
class Section:
    """A table of a plan: rows of cells under a title, `numeric` columns flush right, and what it rests on."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()
    numeric: tuple[int, ...] = ()
    footer: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything `tinyr1v plan` says. `figures` are the same numbers for machines, units in the names."""

    kind: str
    title: str
    cluster: ClusterShape
    problems: tuple[str, ...]
    change: str
    sections: tuple[Section, ...]
    figures: Mapping[str, Any]
    settings: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the cluster can hold the run."""
        return not self.problems


@dataclass(frozen=True)
class PlanRequest:
    """What is asked: a configuration, where it would run, and what is known better than the assumptions."""

    path: Path | None
    tree: Mapping[str, Any]
    overrides: Sequence[str] = ()
    cluster: ClusterShape | None = None
    throughput: Mapping[str, float] = field(default_factory=dict)
    recorded: Path | None = None
    expect: Mapping[str, float] = field(default_factory=dict)
    shape: str = ""
