"""What there is to see of a run, from its files alone: under way, finished or dead."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from tinyr1v_ray.config.base import read_yaml
from tinyr1v_ray.errors import RunFolderError, TinyR1VError
from tinyr1v_ray.evaluation.reading import UNREADABLE, parse, read_object, reason
from tinyr1v_ray.report.recipe import INDEX, RUNNING, read_recipe
from tinyr1v_ray.telemetry.board import EVERY_S, FINISHED, NOW_FILE
from tinyr1v_ray.telemetry.events import EVENTS_FILE
from tinyr1v_ray.telemetry.progress import NUM_STEPS_AVERAGED, format_duration
from tinyr1v_ray.telemetry.run_folder import CONFIG_FILE, check_readable
from tinyr1v_ray.telemetry.sinks import METRICS_FILE
from tinyr1v_ray.telemetry.timing import WHOLE_STEP

CURVES = {"reward_mean": "reward", "accuracy": "accuracy", "length_mean": "tokens per answer"}
NUM_EVENTS = 20
_SILENT_S = 15 * EVERY_S
"""Without a sign of life for so long, a run on another machine is taken for dead, and one on this is said to hang."""
_PHASES = {
    "generate": "waits for groups",
    "learn": "trains",
    "switch": "changes places with engines",
    "publish": "hands over weights",
    "evaluate": "waits for held-out answers",
    "checkpoint": "saves",
}


@dataclass(frozen=True)
class Flight:
    """A group in flight: where it is, for how long, and who has it in hand."""

    position: int
    prompt_id: str
    state: str
    seconds: float
    engine: str


@dataclass(frozen=True)
class View:
    """What there is to see; seconds are up to now, or up to the last sign of life of a run that has ended.

    `curves` holds steps and values by label. `doing` is what the driver does, with its seconds. `shares` says how the
    learner spends the last steps. `samples` are the newest step's kept groups, `images` the folder of their pictures.
    """

    name: str
    state: str
    is_running: bool
    step: int
    num_steps: int
    left_s: float | None
    curves: Mapping[str, Sequence[tuple[int, float]]]
    tokens_per_second: float | None
    shares: Mapping[str, float]
    doing: Mapping[str, float] = field(default_factory=dict)
    group_states: Mapping[str, int] = field(default_factory=dict)
    flights: Sequence[Flight] = ()
    loads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    samples_step: int = 0
    samples: Sequence[Mapping[str, Any]] = ()
    images: Path = Path()
    stages: Sequence[tuple[str, str]] = ()

    @property
    def num_in_flight(self) -> int:
        """Groups issued and not trained on yet."""
        return sum(self.group_states.values())


class Watcher:
    """Reads a run's folder again and again; of files that only grow, what is new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, _Growing] = {}

    def look(self) -> View:
        """The run as it stands now; of a recipe, the training that is under way, else the last that there is.

        Raises RunFolderError for a folder that is no run, or of a newer version.
        """
        try:
            return self._look()
        except TinyR1VError:
            raise
        except UNREADABLE as error:
            raise RunFolderError(
                f"{self._folder} cannot be read ({reason(error)}); what is shown is what the run wrote; "
                "ask tinyr1v verify where it is damaged"
            ) from error

    def _look(self) -> View:
        check_readable(self._folder)
        if not (self._folder / INDEX).is_file():
            return self._view(self._folder, ())
        recipe = read_recipe(self._folder)
        trainings = [stage for stage in recipe.stages if stage.kind == "train"]
        begun = [stage for stage in trainings if (self._folder / stage.folder / CONFIG_FILE).is_file()]
        running = [stage for stage in begun if stage.state == RUNNING]
        if not begun:
            raise RunFolderError(
                f"{self._folder} is a recipe that has trained nothing yet; a training is what is shown; "
                "name it once its first training has begun"
            )
        chosen = (running or begun[-1:])[0]
        stages = [(stage.id, stage.state) for stage in recipe.stages]
        check_readable(self._folder / chosen.folder)
        return self._view(self._folder / chosen.folder, stages)

    def _rows(self, path: Path) -> list[dict[str, Any]]:
        return self._files.setdefault(path, _Growing(path)).rows()

    def _view(self, folder: Path, stages: Sequence[tuple[str, str]]) -> View:
        rows, config = self._rows(folder / METRICS_FILE), read_yaml(folder / CONFIG_FILE)
        now, step = _object(folder / NOW_FILE), int(rows[-1]["step"]) if rows else 0
        state, is_running = _state(folder, now)
        seen_s = time.time() if is_running else float(now.get("written", 0))
        engine_of = {at: name for name, load in now.get("loads", {}).items() for at in load.get("positions", ())}
        sample = max(folder.glob("samples/step_*.json"), default=None)
        return View(
            name=folder.name,
            state=state,
            is_running=is_running,
            step=step,
            num_steps=int(config["run"]["num_steps"]),
            left_s=_left_s(rows, int(config["run"]["num_steps"]) - step) if is_running else None,
            curves={label: _curve(rows, name) for name, label in CURVES.items()},
            tokens_per_second=rows[-1].get("tokens_per_second") if rows else None,
            shares=_shares(rows[-NUM_STEPS_AVERAGED:]),
            doing={what: seen_s - since for what, since in now.get("doing", {}).items()},
            group_states=now.get("states", {}),
            flights=[
                Flight(at, prompt_id, state, seen_s - since, engine_of.get(at, ""))
                for at, prompt_id, state, since in now.get("groups", ())
            ],
            loads=now.get("loads", {}),
            events=self._rows(folder / EVENTS_FILE)[-NUM_EVENTS:],
            samples_step=int(sample.stem.removeprefix("step_")) if sample else 0,
            samples=_object(sample).get("groups", ()) if sample else (),
            images=folder / "samples",
            stages=stages,
        )


class _Growing:
    """The rows of a file of JSON lines; only what was appended is read again, and all of it when it was cut back."""

    def __init__(self, path: Path) -> None:
        self._path, self._end, self._rows = path, 0, list[dict[str, Any]]()

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines; a missing file has none."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            if self._path.stat().st_size < self._end:
                self._end, self._rows = 0, []
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._end += len(line)
                self._rows.append(parse(line))
        return self._rows


def resampled(values: Sequence[float], most: int) -> list[float]:
    """At most so many values: means of neighbours where there are more.

    >>> resampled([1, 2, 3, 5], 2)
    [1.5, 4.0]
    """
    if len(values) <= most:
        return list(values)
    ends = [place * len(values) // most for place in range(most + 1)]
    return [statistics.fmean(values[start:end]) for start, end in pairwise(ends)]


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, or none that can be read."""
    try:
        return read_object(path)
    except UNREADABLE:
        return {}


def _state(folder: Path, now: Mapping[str, Any]) -> tuple[str, bool]:
    """In words, and whether the run is under way."""
    if not now:
        return ("finished" if (folder / "summary.json").is_file() else f"no {NOW_FILE} says where it stands"), False
    if ended := now["ended"]:
        return (ended if ended == FINISHED else f"ended: {ended}"), False
    silent_s = time.time() - now["written"]
    is_here = now["host"] == platform.node()
    if (is_here and not psutil.pid_exists(now["pid"])) or (not is_here and silent_s > _SILENT_S):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now["written"]))
        return f"dead: no sign of life since {at}; --resume goes on from the last checkpoint", False
    return "running" + (f", silent for {format_duration(silent_s)}" if silent_s > _SILENT_S else ""), True


def _left_s(rows: Sequence[Mapping[str, Any]], num_steps: int) -> float | None:
    recent = [row[f"seconds_{WHOLE_STEP}"] for row in rows[-NUM_STEPS_AVERAGED:]]
    return statistics.median(recent) * max(0, num_steps) if recent else None


def _curve(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]


def _shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How the wall time of these steps splits up, by what the learner does; what is left is `other`."""
    total = sum(row[f"seconds_{WHOLE_STEP}"] for row in rows)
    if not total:
        return {}
    shares = {label: sum(row.get(f"seconds_{name}", 0) for row in rows) / total for name, label in _PHASES.items()}
    shares["other"] = 1 - sum(shares.values())
    return {label: share for label, share in shares.items() if share > 0.005}
