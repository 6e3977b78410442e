"""The index of a recipe's folder: which stages there are, what became of them, and which models came out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1v_ray.errors import RunFolderError

INDEX = "recipe.json"


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
    """One model of one seed, and where its training, merge and evaluation lie."""

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
        return Recipe(
            run,
            str(tree["name"]),
            str(tree.get("started", "")),
            bool(tree.get("miniature", False)),
            tuple(_stage(run, row) for row in tree["stages"]),
            tuple(_entry(run, row) for row in tree["models"]),
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


def _entry(run: Path, row: dict[str, Any]) -> Entry:
    boost = row.get("boost")
    train, merge, evaluation = (run / row[key] if row.get(key) else None for key in ("train", "merge", "evaluation"))
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
        merge,
        evaluation,
    )
