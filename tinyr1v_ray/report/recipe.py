"""The index of a recipe's folder: which stages there are, what became of them, and which models came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1v_ray.errors import DataError, RunFolderError
from tinyr1v_ray.evaluation.reading import UNREADABLE, is_count, is_number, read_object, reason, texts

INDEX = "recipe.json"
"""What a recipe's folder is found by."""
DONE, RUNNING = "done", "running"
"""States of stages whose results are read: of a running one only the steps of a training."""


@dataclass(frozen=True)
class Stage:
    """One stage; `seconds` is None until it has ended."""

    id: str
    kind: str
    name: str
    seed: int | None
    folder: Path
    state: str
    seconds: float | None


@dataclass(frozen=True)
class Entry:
    """One model of one seed, and where its training, merge and evaluation lie.

    `evaluation` and `merge` are None until their stages are done, `train` until its stage runs: what lies in the folder
    of a stage that waits or has failed is of another attempt, made of other results.
    """

    name: str
    role: str
    algorithm: str
    domains: tuple[str, ...]
    boost: float | None
    start_from: str
    """Name of the training that this one goes on from; empty: the base."""
    seed: int
    folder: Path
    train: Path | None
    merge: Path | None
    evaluation: Path | None
    is_training: bool = False
    """Whether the training's stage runs still, so that more steps will come."""

    @property
    def home(self) -> str:
        """The domain that the model is judged on; empty for the base, merges and trainings on several or in turn.

        A specialist has exactly one, the first that is said of it, from however many sources it learned it.
        """
        if self.role == "specialist":
            return self.domains[0] if self.domains else ""
        is_one = self.role == "baseline" and not self.start_from and len(set(self.domains)) == 1
        return self.domains[0] if is_one else ""


@dataclass(frozen=True)
class Recipe:
    """What `recipe.json` says; paths are absolute."""

    run: Path
    name: str
    started: str
    miniature: bool
    stages: tuple[Stage, ...]
    entries: tuple[Entry, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of all models, ascending."""
        return tuple(sorted({entry.seed for entry in self.entries}))


def read_recipe(run: Path) -> Recipe:
    """Read the index of a recipe's folder; raises RunFolderError when it is missing or broken."""
    run = run.expanduser().absolute()
    path = run / INDEX
    try:
        tree = read_object(path)
        stages = tuple(_stage(run, row) for row in tree["stages"])
        states = {stage.folder: stage.state for stage in stages}
        return Recipe(
            run,
            str(tree["name"]),
            str(tree.get("started", "")),
            bool(tree.get("miniature", False)),
            stages,
            tuple(_entry(run, row, states) for row in tree["models"]),
        )
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be read: {error.strerror}; the folder of a recipe has it; name the folder that `tinyr1v "
            "run` printed"
        ) from error
    except UNREADABLE as error:
        raise RunFolderError(
            f"{path} is broken ({reason(error)}); it lists stages and models; "
            "start `tinyr1v run` again, which rewrites it"
        ) from error


def _stage(run: Path, row: dict[str, Any]) -> Stage:
    seed = row.get("seed")
    return Stage(
        str(row["id"]),
        str(row["kind"]),
        str(row["name"]),
        None if seed is None else _seed(seed),
        _folder(run, row["folder"]),
        str(row["state"]),
        _figure(row, "seconds"),
    )


def _entry(run: Path, row: dict[str, Any], states: Mapping[Path, str]) -> Entry:
    def found(key: str, *allowed: str) -> Path | None:
        path = _folder(run, row[key]) if row.get(key) else None
        return path if path is not None and _state(path, states) in allowed else None

    train = found("train", DONE, RUNNING)
    return Entry(
        str(row["name"]),
        str(row["role"]),
        str(row.get("algorithm") or ""),
        texts(row.get("domains") or [], "domains of a model"),
        _figure(row, "boost"),
        str(row.get("start_from") or ""),
        _seed(row.get("seed") or 0),
        _folder(run, row["folder"]),
        train,
        found("merge", DONE),
        found("evaluation", DONE),
        train is not None and _state(train, states) == RUNNING,
    )


def _seed(value: object) -> int:
    if not isinstance(value, int) or not is_count(abs(value)):
        raise DataError(f"a seed is {str(value)[:40]!r}; seeds are whole numbers; correct it")
    return value


def _figure(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is not None and not is_number(value):
        raise DataError(f"{name} is {str(value)[:40]!r}; it is a finite number or null; correct it")
    return None if value is None else float(value)


def _folder(run: Path, value: object) -> Path:
    if not isinstance(value, str) or "\0" in value:
        raise DataError(f"a folder is {str(value)[:40]!r}; it is a path; correct it")
    return run / value


def _state(path: Path, states: Mapping[Path, str]) -> str:
    """Of the stage whose folder this is or holds this; empty where no stage makes it."""
    return next((states[folder] for folder in (path, *path.parents) if folder in states), "")
