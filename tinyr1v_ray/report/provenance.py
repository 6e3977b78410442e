"""Where the metrics come from: how answers were drawn, with which settings and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tinyr1v_ray.evaluation.benchmarks.stored import read_record
from tinyr1v_ray.evaluation.reading import UNREADABLE, as_object, read_object, read_or_remark
from tinyr1v_ray.report.recipe import Recipe
from tinyr1v_ray.telemetry.run_folder import CONFIG_FILE, ENVIRONMENT_FILE


@dataclass(frozen=True)
class Provenance:
    """`drawing` has a line for each way in which answers were drawn: more than one means they are not comparable.
    `settings` is the recipe's own file. `versions` are of the first training, of what it ran on."""

    drawing: tuple[str, ...]
    settings: str
    versions: Mapping[str, str]


def read_provenance(recipe: Recipe) -> tuple[Provenance, list[str]]:
    """From the evaluations' records, the recipe's configuration and the first training's environment.

    And what is left out; of the records of graded evaluations the outcomes say so.
    """
    folders = [entry.evaluation for entry in recipe.entries if entry.evaluation is not None]
    records = [read_or_remark(partial(read_record, folder), folder.name)[0] for folder in folders]
    drawing = dict.fromkeys(_drawing(record["config"]) for record in records if record is not None)
    settings, unread = read_or_remark(partial(_settings, recipe.run), CONFIG_FILE)
    versions, unread_too = _first_versions(recipe)
    return Provenance(tuple(drawing), settings or "", versions), unread + unread_too


def _drawing(config: Mapping[str, Any]) -> str:
    try:
        return _drawing_of(config)
    except UNREADABLE:
        return "in a way that its record does not tell"


def _drawing_of(config: Mapping[str, Any]) -> str:
    sampling = config.get("sampling", {})
    temperature, longest = sampling.get("temperature", 0.0), sampling.get("max_tokens")
    if not temperature:
        return f"greedy, at most {longest} tokens"
    number, top_p = sampling.get("num_samples", 1), sampling.get("top_p", 1.0)
    answers = "one sampled answer" if number == 1 else f"{number} sampled answers"
    return f"{answers} an item at temperature {temperature:g}, top-p {top_p:g}, at most {longest} tokens"


def _settings(run: Path) -> str:
    """The recipe's configuration, without the folder it ran in."""
    lines = (run / CONFIG_FILE).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("folder:"))


def _first_versions(recipe: Recipe) -> tuple[dict[str, str], list[str]]:
    remarks: list[str] = []
    for entry in recipe.entries:
        if entry.train is not None:
            what = f"{entry.name}, seed {entry.seed}: {ENVIRONMENT_FILE}"
            versions, said = read_or_remark(partial(_versions, entry.train / ENVIRONMENT_FILE), what)
            remarks += said
            if versions:
                return versions, remarks
    return {}, remarks


def _versions(path: Path) -> dict[str, str]:
    environment = read_object(path)
    named = {"commit": environment.get("git_commit"), "python": environment.get("python")}
    named |= {"CPU cores": environment.get("num_cpus")}
    named |= as_object(environment.get("packages", {}), "packages")
    return {name: str(version) for name, version in named.items() if version}


def mixed_drawing(drawing: Sequence[str]) -> list[str]:
    """A note where evaluations drew their answers in several ways."""
    if len(drawing) < 2:
        return []
    return [f"Models were not all asked in the same way: {'; '.join(drawing)}. Differences between them mix both."]
