"""The index of a recipe's folder: which stages there are, what became of them, and which models came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.evaluation.reading import UNREADABLE, is_number, read_object, reason

INDEX = "recipe.json"
"""What a recipe's folder is found by."""
DONE, RUNNING = "done", "running"
"""States of stages whose results are read: of a running one only the steps of a training."""


def _finite(value: float) -> float:
    if not is_number(value):
        raise ValueError("it is a finite number")
    return value


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError("it is a path")
    return value


Role = Literal["base", "specialist", "baseline", "merged"]
"""What a model is in the report: where all begins, what is merged, what that is compared with, and the merges."""
Seed = Annotated[int, Field(gt=-(10**15), lt=10**15)]
Finite = Annotated[float, AfterValidator(_finite)]
PathText = Annotated[str, AfterValidator(_path)]
"""Of the recipe's folder, else absolute."""


class _IndexRow(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class RecipeStageRow(_IndexRow):
    """One stage; `seconds` is None until it has ended."""

    id: str
    kind: str
    name: str
    seed: Seed | None = None
    folder: PathText
    fingerprint: str = ""
    needs: list[str] = []
    state: str
    seconds: Finite | None = None


class RecipeModelRow(_IndexRow):
    """One model of one seed, how it was made, and where its training, merge and evaluation lie."""

    name: str
    seed: Seed = 0
    role: Role
    algorithm: str = ""
    domains: list[str] = []
    boost: Finite | None = None
    start_from: str = ""
    """Name of the training that this one goes on from; empty: the base."""
    steps: int | None = None
    """Training steps that went into it, of all experts together."""
    folder: PathText
    train: PathText | None = None
    merge: PathText | None = None
    evaluation: PathText | None = None


class StudyRow(_IndexRow):
    """Which methods are compared with which, on what trainings; `margin` is a share of accuracy."""

    reference: str
    margin: Finite
    methods: dict[str, list[str]]


class RecipeIndex(_IndexRow):
    """What `recipe.json` holds."""

    name: str
    started: str = ""
    miniature: bool = False
    stages: list[RecipeStageRow]
    models: list[RecipeModelRow]
    study: StudyRow | None = None


@dataclass(frozen=True)
class Entry:
    """One model of one seed, and where its training, merge and evaluation lie.

    `evaluation` and `merge` are None until their stages are done, `train` until its stage runs: what lies in the folder
    of a stage that waits or has failed is of another attempt, made of other results.
    """

    name: str
    role: Role
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
    steps: int | None = None
    """Training steps that went into it, of all experts together; None where the index does not say."""
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
    stages: tuple[RecipeStageRow, ...]
    entries: tuple[Entry, ...]
    study: StudyRow | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing but a report is still to come."""
        return all(stage.state == DONE for stage in self.stages if stage.kind != "report")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of all models, ascending."""
        return tuple(sorted({entry.seed for entry in self.entries}))


def read_recipe(run: Path) -> Recipe:
    """Read the index of a recipe's folder; raises RunFolderError when it is missing or broken."""
    run = run.expanduser().absolute()
    path = run / INDEX
    try:
        index = RecipeIndex.model_validate(read_object(path))
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
    states = {run / stage.folder: stage.state for stage in index.stages}
    entries = tuple(_entry(run, row, states) for row in index.models)
    return Recipe(run, index.name, index.started, index.miniature, tuple(index.stages), entries, index.study)


def _entry(run: Path, row: RecipeModelRow, states: Mapping[Path, str]) -> Entry:
    def found(text: str | None, *allowed: str) -> Path | None:
        path = run / text if text else None
        return path if path is not None and _state(path, states) in allowed else None

    train = found(row.train, DONE, RUNNING)
    return Entry(
        name=row.name,
        role=row.role,
        algorithm=row.algorithm,
        domains=tuple(row.domains),
        boost=row.boost,
        start_from=row.start_from,
        seed=row.seed,
        folder=run / row.folder,
        train=train,
        merge=found(row.merge, DONE),
        evaluation=found(row.evaluation, DONE),
        steps=row.steps,
        is_training=train is not None and _state(train, states) == RUNNING,
    )


def _state(path: Path, states: Mapping[Path, str]) -> str:
    """Of the stage whose folder this is or holds this; empty where no stage makes it."""
    return next((states[folder] for folder in (path, *path.parents) if folder in states), "")
