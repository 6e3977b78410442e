"""One evaluation's items and answers, checked before anything is counted: what is missing is never counted as wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyr1v_ray.config.benchmark import UserBenchmarkSettings
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark
from tinyr1v_ray.evaluation.benchmarks.registry import find_benchmark
from tinyr1v_ray.evaluation.benchmarks.scores import official_scores
from tinyr1v_ray.evaluation.benchmarks.stored import (
    ANSWERS,
    StoredAnswer,
    StoredItem,
    benchmark_folder,
    read_answers,
    read_items,
    read_record,
)

_EQUAL_POINTS = 1e-6


@dataclass(frozen=True)
class Answered:
    """Items and answers of one model, seed and benchmark; `score` is the official score on 0-100.

    `is_plain` says whether that is the share of right items. `groups` says of each item what it belongs to.
    """

    items: tuple[StoredItem, ...]
    groups: tuple[str, ...]
    answers: tuple[StoredAnswer, ...]
    score: float
    is_plain: bool
    images: Path
    """Folder that the images' file names are relative to."""


def read_evaluation(folder: Path) -> tuple[dict[str, Answered], list[str]]:
    """The benchmarks of an evaluation's folder all of whose items are answered, and what is left out and why.

    Evaluations store an answer to every item, an empty one where it could not be asked; an item without one was lost,
    and says nothing about the model. Raises errors of `reading.UNREADABLE` when a file is missing or broken.
    """
    record = read_record(folder)
    user = {name: UserBenchmarkSettings.model_validate(row) for name, row in record["config"]["user"].items()}
    found, lost = {}, {}
    for name in record["benchmarks"]:
        benchmark, inside = find_benchmark(name, user), benchmark_folder(folder, name)
        items, answers = read_items(inside), read_answers(inside)
        num_wanted = _num_wanted(name, items, answers)
        if len(answers) < num_wanted:
            lost[name] = (len(answers), num_wanted)
        else:
            found[name] = _answered(benchmark, items, answers, folder.parent / ".images")
    return found, _said(found, lost)


def _answered(
    benchmark: Benchmark, items: Sequence[StoredItem], answers: Sequence[StoredAnswer], images: Path
) -> Answered:
    scores, correct_SN = official_scores(benchmark, items, answers)
    is_plain = abs(scores["score"] - 100 * correct_SN.mean()) < _EQUAL_POINTS
    groups = tuple(benchmark.group(stored.item) for stored in items)
    return Answered(tuple(items), groups, tuple(answers), scores["score"], bool(is_plain), images)


def _said(found: dict[str, Answered], lost: dict[str, tuple[int, int]]) -> list[str]:
    """One line where no answer is left at all, else one for each benchmark."""
    num_stored, num_wanted = (sum(numbers[part] for numbers in lost.values()) for part in range(2))
    if lost and not found and not num_stored:
        return [f"left out, 0 of {num_wanted} answers are stored"]
    return [f"{name} is left out, {stored} of {wanted} answers are stored" for name, (stored, wanted) in lost.items()]


def _num_wanted(name: str, items: Sequence[StoredItem], answers: Sequence[StoredAnswer]) -> int:
    """Answers to all items, as many samples of each as of any; raises DataError for an answer to something else."""
    indexes = {stored.item.index for stored in items}
    strange = next((answer.prompt_id for answer in answers if answer.prompt_id not in indexes), None)
    if strange is not None:
        raise DataError(f"{ANSWERS} of {name} has item {strange!r}; answers are to the items asked; restore it")
    return len(items) * (1 + max((answer.sample for answer in answers), default=0))
