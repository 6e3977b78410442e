"""One evaluation's items and answers, checked before anything is counted: what is missing is never counted as wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tinyr1v_ray.config.evaluate import UserBenchmarkSettings
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.benchmarks.figures import official_figures
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark
from tinyr1v_ray.evaluation.benchmarks.registry import find_benchmark
from tinyr1v_ray.evaluation.benchmarks.stored import (
    ANSWERS,
    ITEMS,
    RECORD,
    StoredAnswer,
    StoredItem,
    benchmark_folder,
    read_answers,
    read_items,
)
from tinyr1v_ray.evaluation.report.reading import as_object, is_count, is_number, read_object, texts

_EQUAL_POINTS = 1e-6


@dataclass(frozen=True)
class Answered:
    """Items and answers of one model, seed and benchmark; `score` is the official figure on 0-100.

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
    record = read_object(folder / RECORD)
    described = as_object(
        as_object(record.get("config", {}), f"config of {RECORD}").get("user", {}), f"user of {RECORD}"
    )
    user = {name: UserBenchmarkSettings.model_validate(row) for name, row in described.items()}
    found, lost = {}, {}
    for name in texts(record.get("benchmarks"), f"benchmarks of {RECORD}"):
        benchmark, inside = find_benchmark(name, user), benchmark_folder(folder, name)
        items, answers = read_items(inside), read_answers(inside)
        _check_items(name, items)
        num_wanted = _num_wanted(name, items, answers)
        if len(answers) < num_wanted:
            lost[name] = (len(answers), num_wanted)
        else:
            found[name] = _answered(benchmark, items, answers, folder.parent / ".images")
    return found, _said(found, lost)


def _answered(
    benchmark: Benchmark, items: Sequence[StoredItem], answers: Sequence[StoredAnswer], images: Path
) -> Answered:
    figures, correct_SN = official_figures(benchmark, items, answers)
    is_plain = abs(figures["score"] - 100 * correct_SN.mean()) < _EQUAL_POINTS
    groups = tuple(benchmark.group(stored.item) for stored in items)
    return Answered(tuple(items), groups, tuple(answers), figures["score"], bool(is_plain), images)


def _said(found: dict[str, Answered], lost: dict[str, tuple[int, int]]) -> list[str]:
    """One line where no answer is left at all, else one for each benchmark."""
    num_stored, num_wanted = (sum(numbers[part] for numbers in lost.values()) for part in range(2))
    if lost and not found and not num_stored:
        return [f"left out, 0 of {num_wanted} answers are stored"]
    return [f"{name} is left out, {stored} of {wanted} answers are stored" for name, (stored, wanted) in lost.items()]


def _check_items(name: str, items: Sequence[StoredItem]) -> None:
    if not items:
        raise DataError(f"{ITEMS} of {name} is empty; a benchmark has items; restore it")
    if not all(_is_sound_item(stored) for stored in items):
        raise DataError(f"{ITEMS} of {name} has a field of another kind; {_REMEDY}")
    index, number = Counter(stored.item.index for stored in items).most_common(1)[0]
    if number > 1:
        raise DataError(f"item {index!r} stands {number} times in {ITEMS} of {name}; an item stands once; restore it")


def _is_sound_item(stored: StoredItem) -> bool:
    item = stored.item
    pairs = [
        *as_object(item.options, "options").items(),
        *as_object(item.columns, "columns").items(),
        ("asked", stored.asked),
    ]
    return (
        all(isinstance(text, str) for _, text in pairs) and _fits(item) and all(_fits(facts) for facts in item.images)
    )


def _num_wanted(name: str, items: Sequence[StoredItem], answers: Sequence[StoredAnswer]) -> int:
    """Answers to all items, as many samples of each as of any; raises DataError for an answer that fits nowhere."""
    indexes = {stored.item.index for stored in items}
    seen = set()
    for answer in answers:
        if not _fits(answer):
            raise DataError(f"{ANSWERS} of {name} has a field of another kind; {_REMEDY}")
        key = (answer.prompt_id, answer.sample)
        if answer.prompt_id not in indexes or answer.sample >= len(answers) or key in seen:
            raise DataError(
                f"{ANSWERS} of {name} has sample {answer.sample} of item {answer.prompt_id!r}; answers are to the "
                "items asked, samples count from 0, each stands once; restore it"
            )
        seen.add(key)
    return len(items) * (1 + max((answer.sample for answer in answers), default=0))


_REMEDY = "evaluations write texts, finite numbers and true or false; restore it"
_KINDS = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": is_count,
    "float": is_number,
}


def _fits(row: Any) -> bool:
    """Whether the plain fields of a dataclass hold what they are declared as."""
    return all(_KINDS[str(f.type)](getattr(row, f.name)) for f in fields(row) if str(f.type) in _KINDS)
