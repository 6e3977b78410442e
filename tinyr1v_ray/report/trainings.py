"""What the trainings left: metrics by step, groups with their advantages, seconds by phase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tinyr1v_ray.config.algorithm import AlgorithmName
from tinyr1v_ray.config.base import read_yaml
from tinyr1v_ray.evaluation.reading import UNREADABLE, as_object, is_count, is_number, parse, read_or_remark, reason
from tinyr1v_ray.report.recipe import Entry, Recipe
from tinyr1v_ray.telemetry.run_folder import CONFIG_FILE, differing_keys
from tinyr1v_ray.telemetry.sinks import GROUPS_FILE, METRICS_FILE
from tinyr1v_ray.telemetry.timing import WHOLE_STEP

_OF_THE_RUN_ALONE = ("run.name", "run.folder", "telemetry.", "cluster.")
_SECONDS = "seconds_"
_MOST_COMPLETIONS = 4096
"""Of a group, which is compared pair by pair."""


@dataclass(frozen=True)
class Training:
    """One training of one seed; `rows` are its finished steps, `config` is empty where none can be read."""

    entry: Entry
    folder: Path
    config: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def seconds_by_phase(self) -> dict[str, float]:
        """Seconds over all steps by phase; what the phases leave of the steps' wall time is `other`."""
        total: dict[str, float] = defaultdict(float)
        for row in self.rows:
            for key, value in row.items():
                if key.startswith(_SECONDS) and isinstance(value, int | float):
                    total[key.removeprefix(_SECONDS)] += value
        wall = total.pop(WHOLE_STEP, 0.0)
        return {**total, "other": max(0.0, wall - sum(total.values()))}


@dataclass(frozen=True)
class Curve:
    """A metric by step: mean, least and largest over the seeds, at the steps that every seed has finished.

    `is_whole` says that no more steps will come.
    """

    algorithm: str
    num_seeds: int
    is_whole: bool
    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def read_trainings(recipe: Recipe) -> tuple[tuple[Training, ...], list[str]]:
    """Every training with at least one finished step, each folder once, in the recipe's order; and what is left out."""
    found: dict[Path, Training] = {}
    remarks: list[str] = []
    read: set[Path] = set()
    for entry in recipe.entries:
        if entry.train is None or entry.role == "merged" or entry.train in read:
            continue
        read.add(entry.train)
        rows, left_out = json_lines(entry.train / METRICS_FILE, _is_step)
        config, unread = read_or_remark(partial(_config, entry.train / CONFIG_FILE), CONFIG_FILE)
        remarks += [f"{entry.name}, seed {entry.seed}: {said}" for said in left_out + unread]
        if rows:
            found[entry.train] = Training(entry, entry.train, config or {}, tuple(rows))
    return tuple(found.values()), remarks


def json_lines(path: Path, is_sound: Callable[[Mapping[str, Any]], bool]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a file of JSON lines that are sound, and a sentence where others are left out.

    A torn last line is what a kill leaves, of which nothing is said; a missing file has no rows.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except (OSError, ValueError) as error:
        return [], [f"{path.name} is left out, it cannot be read ({reason(error)})"]
    rows = []
    for line in lines:
        try:
            row = as_object(parse(line), path.name)
        except UNREADABLE:
            continue
        if is_sound(row):
            rows.append(row)
    num_broken = len(lines) - len(rows)
    return rows, [
        f"{num_broken} of {len(lines)} rows of {path.name} are left out, they are broken"
    ] if num_broken else []


def _is_step(row: Mapping[str, Any]) -> bool:
    """Whether the step is a count and each metric a number, or null where there was none."""
    metrics = (value for name, value in row.items() if name != "step")
    return is_count(row.get("step")) and all(value is None or is_number(value) for value in metrics)


def _is_group(row: Mapping[str, Any]) -> bool:
    """Whether it has a verdict, a length and an advantage of each of at most _MOST_COMPLETIONS answers."""
    parts = [row.get(name) for name in ("correct", "lengths", "advantages")]
    if not all(isinstance(part, list) and len(part) <= _MOST_COMPLETIONS for part in parts):
        return False
    correct, lengths, advantages = (part if isinstance(part, list) else [] for part in parts)
    return (
        len(correct) == len(lengths) == len(advantages)
        and all(isinstance(verdict, bool) for verdict in correct)
        and all(is_number(value) for value in (*lengths, *advantages))
    )


def _config(path: Path) -> dict[str, Any]:
    return read_yaml(path) if path.exists() else {}


def differing_settings(first: Training, second: Training) -> list[str]:
    """Settings in which two trainings differ, apart from names, what leaves the steps as they are, and one algorithm's
    own settings where not both use it."""
    names = {training.entry.algorithm for training in (first, second)}
    unused = tuple(f"algorithm.{name}." for name in get_args(AlgorithmName) if names != {name})
    keys = differing_keys(first.config, second.config)
    return [key for key in keys if not key.startswith((*_OF_THE_RUN_ALONE, *unused))]


def of_model(trainings: Sequence[Training], name: str, seed: int | None = None) -> Training | None:
    """A model's training, of the seed or of its first."""
    rows = (t for t in trainings if t.entry.name == name and seed in (None, t.entry.seed))
    return next(rows, None)


def curves(trainings: Sequence[Training], domain: str, metric: str) -> list[Curve]:
    """A metric of the trainings of one domain, a curve an algorithm.

    Of several models by one algorithm it is the specialist's, else the first's. Seeds that are trained still are left
    out where others are done: the curve would end where they are.
    """
    by_algorithm: dict[str, dict[str, list[Training]]] = defaultdict(lambda: defaultdict(list))
    for training in trainings:
        if training.entry.home == domain:
            by_algorithm[training.entry.algorithm][training.entry.name].append(training)
    found = (_curve(algorithm, _leading(models), metric) for algorithm, models in by_algorithm.items())
    return [curve for curve in found if curve is not None]


def _leading(models: Mapping[str, Sequence[Training]]) -> Sequence[Training]:
    """The trainings of one of an algorithm's models."""
    rows = min(models.values(), key=lambda rows: rows[0].entry.role != "specialist")
    return [training for training in rows if not training.entry.is_training] or rows


def _curve(algorithm: str, trainings: Sequence[Training], metric: str) -> Curve | None:
    tables = [
        {row["step"]: float(row[metric]) for row in training.rows if row.get(metric) is not None}
        for training in trainings
    ]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    if not steps:
        return None
    values_ST = np.array([[table[step] for step in steps] for table in tables])
    return Curve(
        algorithm,
        len(tables),
        not any(training.entry.is_training for training in trainings),
        np.array(steps),
        values_ST.mean(axis=0),
        values_ST.min(axis=0),
        values_ST.max(axis=0),
    )


@dataclass(frozen=True)
class Preference:
    """Among pairs of right answers to one prompt whose lengths differ: in how many the shorter had the larger
    advantage, in how many the longer, in how many both had the same."""

    num_shorter: int
    num_longer: int
    num_equal: int

    @property
    def num_pairs(self) -> int:
        """All pairs."""
        return self.num_shorter + self.num_longer + self.num_equal


def length_preference(training: Training) -> tuple[Preference, list[str]]:
    """Count the pairs over all trained groups, from `groups.jsonl`; and what of it is left out."""
    counts = [0, 0, 0]
    rows, left_out = json_lines(training.folder / GROUPS_FILE, _is_group)
    for row in rows:
        right_G = np.array(row["correct"], bool)
        lengths_G, advantages_G = np.array(row["lengths"])[right_G], np.array(row["advantages"])[right_G]
        shorter_GG = lengths_G[:, None] < lengths_G[None, :]
        gap_GG = (advantages_G[:, None] - advantages_G[None, :])[shorter_GG]
        counts[0] += int((gap_GG > 0).sum())
        counts[1] += int((gap_GG < 0).sum())
        counts[2] += int((gap_GG == 0).sum())
    return Preference(*counts), [f"{training.entry.name}, seed {training.entry.seed}: {said}" for said in left_out]
