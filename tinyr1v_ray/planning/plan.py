"""What a plan is: problems, the nearest change that removes them, sections to read, and the same as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyr1v_ray.cluster.shape import ClusterShape
from tinyr1v_ray.files.json_lines import to_json


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
    """Everything `tinyr1v plan` says. `metrics` are the same numbers for machines, units in the names."""

    kind: str
    title: str
    cluster: ClusterShape
    problems: tuple[str, ...]
    change: str
    sections: tuple[Section, ...]
    metrics: Mapping[str, Any]
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


def plan_lines(plan: Plan) -> list[str]:
    """The verdict first, then the sections."""
    host = f" ({plan.cluster.num_cpus} CPUs and {plan.cluster.host_gib:g} GiB a node"
    host += ", assumed)" if plan.cluster.assumed_host else ")"
    lines = [plan.title, f"on {plan.cluster}{host}"]
    if plan.fits:
        lines.append("fits")
    else:
        lines.append("does not fit:")
        lines += [f"  {problem}" for problem in plan.problems]
        lines.append(
            f"nearest change that fits: {plan.change or 'none found; use larger nodes or GPUs, or a smaller model'}"
        )
    lines += [f"note: {warning}" for warning in plan.warnings]
    for section in plan.sections:
        lines += ["", *section_lines(section)]
    return lines


def section_lines(section: Section) -> Iterator[str]:
    """A table under its title, columns aligned."""
    rows = [*([section.header] if section.header else []), *section.rows]
    columns = max(len(row) for row in rows)
    wide = [
        max((len(row[column]) for row in rows if len(row) > column and any(row[1:])), default=0)
        for column in range(columns)
    ]
    title_row = section.header[1:] if section.header else ()
    first = section.title
    wide[0] = max(wide[0], len(first) - 2) if title_row else wide[0]
    if not title_row:
        yield first
    for number, row in enumerate(rows):
        is_header = bool(section.header) and number == 0
        indent, cells = ("", (first, *row[1:])) if is_header else ("  ", row)
        shown = [
            cell.rjust(wide[column])
            if column in section.numeric
            else cell.ljust(wide[column] + (2 if is_header and not column else 0))
            for column, cell in enumerate(cells)
        ]
        yield (indent + "  ".join(shown)).rstrip()
    if section.footer:
        yield from textwrap.wrap(section.footer, 110, initial_indent="  ", subsequent_indent="  ")


def plan_json(plan: Plan) -> str:
    """One object: verdict, metrics (units in the names) and the resolved settings."""
    content: Mapping[str, Any] = {
        "kind": plan.kind,
        "title": plan.title,
        "cluster": {
            "shape": str(plan.cluster),
            "nodes": plan.cluster.num_nodes,
            "gpus_a_node": plan.cluster.num_gpus,
            "cpus_a_node": plan.cluster.num_cpus,
            "host_gib_a_node": plan.cluster.host_gib,
        },
        "fits": plan.fits,
        "problems": list(plan.problems),
        "nearest_change": plan.change,
        "notes": list(plan.warnings),
        **plan.metrics,
        "settings": dict(plan.settings),
    }
    return to_json(content, indent=2)


def settings_lines(settings: Mapping[str, Any], prefix: str = "") -> Sequence[str]:
    """Every resolved setting as key = value."""
    lines: list[str] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            lines += settings_lines(value, f"{prefix}{name}.")
        else:
            lines.append(f"  {prefix}{name} = {value}")
    return lines
