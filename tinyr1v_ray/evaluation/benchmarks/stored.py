"""What an evaluation leaves on disk: items and answers, from which every figure follows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyr1v_ray.data.images import ImageFacts
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.telemetry.records import replace_file

ITEMS, ANSWERS = "items.jsonl", "answers.jsonl"
"""In the folder of each benchmark."""
RECORD = "evaluation.json"
"""What was asked of which model: the first file of an evaluation's folder."""
SCORES = "scores.json"
"""What an evaluation writes last: before it is there, the stored answers are not graded."""


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
    """What `write_items` wrote."""
    rows = _read_lines(folder / ITEMS)
    return [StoredItem(_as_item(row["item"]), row["asked"]) for row in rows]


def write_answers(folder: Path, answers: Iterable[StoredAnswer]) -> None:
    """One JSON object a line, whole or not at all."""
    replace_file(folder / ANSWERS, _lines(asdict(answer) for answer in answers))


def read_answers(folder: Path) -> list[StoredAnswer]:
    """Stored answers; a last line that a kill tore is left out. No file: none."""
    path = folder / ANSWERS
    return [StoredAnswer(**row) for row in _read_lines(path)] if path.is_file() else []


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; an evaluation's folder has it; name the folder of an evaluation")
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"line {number} of {path} is no JSON; evaluations write whole lines; restore it") from error
    return rows


def _as_item(row: dict[str, Any]) -> BenchmarkItem:
    return BenchmarkItem(**{**row, "images": tuple(ImageFacts(**image) for image in row["images"])})
