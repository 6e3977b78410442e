"""The index of a recipe's folder: which stages there are, what became of them, and which models came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1v_ray.errors import RunFolderError

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
        tree = json.loads(path.read_text(encoding="utf-8"))
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
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{path} is broken ({type(error).__name__}: {' '.join(str(error).split())}); it lists stages and models; "
            "start `tinyr1v run` again, which rewrites it"
        ) from error


def _stage(run: Path, row: dict[str, Any]) -> Stage:
    seconds, seed = row.get("seconds"), row.get("seed")
    return Stage(
        str(row["id"]),
        str(row["kind"]),
        str(row["name"]),
        None if seed is None else int(seed),
        run / str(row["folder"]),
        str(row["state"]),
        None if seconds is None else float(seconds),
    )


def _entry(run: Path, row: dict[str, Any], states: Mapping[Path, str]) -> Entry:
    boost = row.get("boost")

    def found(key: str, *allowed: str) -> Path | None:
        path = run / row[key] if row.get(key) else None
        return path if path is not None and _state(path, states) in allowed else None

    train = found("train", DONE, RUNNING)
    return Entry(
        str(row["name"]),
        str(row["role"]),
        str(row.get("algorithm") or ""),
        tuple(str(domain) for domain in row.get("domains") or ()),
        None if boost is None else float(boost),
        str(row.get("start_from") or ""),
        int(row.get("seed") or 0),
        run / str(row["folder"]),
        train,
        found("merge", DONE),
        found("evaluation", DONE),
        train is not None and _state(train, states) == RUNNING,
    )


def _state(path: Path, states: Mapping[Path, str]) -> str:
    """Of the stage whose folder this is or holds this; empty where no stage makes it."""
    return next((states[folder] for folder in (path, *path.parents) if folder in states), "")
