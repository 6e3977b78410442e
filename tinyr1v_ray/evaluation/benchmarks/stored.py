"""What an evaluation leaves on disk: items and answers, from which every metric follows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tinyr1v_ray.data.images import ImageFacts
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.reading import UNREADABLE, as_object, is_count, is_number, read_object, texts
from tinyr1v_ray.files.durable import replace_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ITEMS, ANSWERS = "items.jsonl", "answers.jsonl"
"""In the folder of each benchmark."""
RECORD = "evaluation.json"
"""What was asked of which model: the first file of an evaluation's folder."""
SCORES = "scores.json"
"""What an evaluation writes last: before it is there, the stored answers are not graded."""
_RowT = TypeVar("_RowT", bound="DataclassInstance")


@dataclass(frozen=True)
class StoredItem:
    """An item and the words in which the model was asked."""

    item: BenchmarkItem
    asked: str


@dataclass(frozen=True)
class StoredAnswer:
    """One answer; the first eight fields are what the engine gave, the rest its grading, which can be done again.

    `sample` counts the answers to an item from 0. `started_s` and `finished_s` are seconds since the epoch, of the
    request that drew all samples of the item. `extracted` is the concluding answer in the text, or the judge's.
    `failure` says why there is no answer or no grade. `judge_reply` is kept, so that grading again asks nobody.

    >>> StoredAnswer("mme", "7", 0, "Yes", 3, "stop", 0.0, 1.5, "color", "Yes").prompt_id
    '7'
    """

    domain: str
    prompt_id: str
    sample: int
    text: str
    num_tokens: int
    finish: str
    started_s: float
    finished_s: float
    difficulty: str = ""
    reference: str = ""
    failure: str = ""
    extracted: str = ""
    reward: float = 0.0
    correct: bool = False
    judge_reply: str = ""
    judge_failure: str = ""


def benchmark_folder(output: Path, name: str) -> Path:
    """Where the items and answers of a benchmark lie."""
    return output / name.replace(":", "_")


def write_items(folder: Path, items: Iterable[StoredItem]) -> None:
    """One JSON object a line, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / ITEMS, _lines(asdict(item) for item in items))


def read_items(folder: Path) -> list[StoredItem]:
    """What `write_items` wrote, at least one item; raises DataError where it is damaged."""
    path = folder / ITEMS
    items = _read_lines(path, _as_item)
    if not items:
        raise DataError(f"{path} is empty; a benchmark has items; restore it")
    index, number = Counter(stored.item.index for stored in items).most_common(1)[0]
    if number > 1:
        raise DataError(f"item {index!r} stands {number} times in {path}; an item stands once; restore it")
    return items


def write_answers(folder: Path, answers: Iterable[StoredAnswer]) -> None:
    """One JSON object a line, whole or not at all."""
    replace_file(folder / ANSWERS, _lines(asdict(answer) for answer in answers))


def read_answers(folder: Path) -> list[StoredAnswer]:
    """Stored answers; a last line that a kill tore is left out. No file: none. Raises DataError where it is damaged."""
    path = folder / ANSWERS
    answers = _read_lines(path, lambda row: _checked(StoredAnswer(**row))) if path.is_file() else []
    for (index, sample), number in Counter((answer.prompt_id, answer.sample) for answer in answers).items():
        if number > 1 or sample >= len(answers):
            raise DataError(
                f"{path} has sample {sample} of item {index!r} {number} times among {len(answers)} answers; samples "
                "count from 0, each stands once; restore it"
            )
    return answers


def read_record(output: Path) -> dict[str, Any]:
    """`same`, `benchmarks` and `config` of an evaluation's record; raises errors of `reading.UNREADABLE`."""
    record = read_object(output / RECORD)
    config = as_object(record["config"], f"config of {RECORD}")
    as_object(config["user"], f"user of {RECORD}")
    same = as_object(record["same"], f"same of {RECORD}")
    return {"same": same, "benchmarks": texts(record["benchmarks"], f"benchmarks of {RECORD}"), "config": config}


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read_lines(path: Path, make: Callable[[dict[str, Any]], _RowT]) -> list[_RowT]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; an evaluation's folder has it; name the folder of an evaluation")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            rows.append(make(json.loads(line)))
        except UNREADABLE as error:
            raise DataError(
                f"line {number} of {path} is damaged ({type(error).__name__}); evaluations write an object a line, of "
                "texts, finite numbers and true or false; restore it"
            ) from error
    return rows


def _as_item(row: dict[str, Any]) -> StoredItem:
    images = tuple(_checked(ImageFacts(**image)) for image in row["item"]["images"])
    item = _checked(BenchmarkItem(**{**row["item"], "images": images}))
    columns = {**as_object(item.options, "options"), **as_object(item.columns, "columns")}
    texts([*columns.values()], "options and columns")
    return _checked(StoredItem(item, row["asked"]))


_KINDS = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": is_count,
    "float": is_number,
}


def _checked(row: _RowT) -> _RowT:
    """The dataclass if its plain fields hold what they are declared as."""
    kinds = {field.name: str(field.type) for field in fields(row)}
    wrong = [name for name, kind in kinds.items() if kind in _KINDS and not _KINDS[kind](getattr(row, name))]
    if wrong:
        raise TypeError(f"{wrong[0]} is of another kind")
    return row
