"""What a benchmark is: items, a prompt, a rule that grades an answer, and an official score made of the grades."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tinyr1v_ray.data.images import ImageFacts
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule

JudgeUse = Literal["none", "extract", "compare", "grading_query"]
"""What an LLM judge is asked where the rules are not sure: to extract the answer (which the rules then grade), to
compare the answer with the key, or the item's own grading query."""


@dataclass(frozen=True)
class BenchmarkItem:
    """One row of a benchmark; `failure` says why it cannot be asked or scored, and then it counts as wrong.

    `options` maps letters to texts, `columns` holds the remaining cells as text, images excepted.

    >>> BenchmarkItem("7", "How many?", "2", columns={"answer_type": "integer"}).columns["answer_type"]
    'integer'
    """

    index: str
    question: str
    answer: str
    options: Mapping[str, str] = field(default_factory=dict)
    category: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    images: tuple[ImageFacts, ...] = ()
    failure: str = ""


def question_text(item: BenchmarkItem) -> str:
    """The question without the marks of its pictures (`<image1>`), which are shown before it.

    >>> question_text(BenchmarkItem("7", "<image1>\\nHow many ants <image2> are there?", "2"))
    'How many ants are there?'
    """
    return re.sub(r"[ \t]*<image ?\d*>", "", item.question).strip()


@dataclass(frozen=True)
class Grade:
    """The rules' verdict on one answer: its score in [0, 1], and whether it is right.

    `is_sure` is False where no rule could tell what the answer is, so that a judge may be asked. A right answer is
    always sure: a judge that fails can therefore never turn into a right answer.
    """

    score: float
    correct: bool
    is_sure: bool

    def __post_init__(self) -> None:
        if self.correct and not self.is_sure:
            raise ValueError("a right answer is sure")


def exact_grade(correct: bool, is_sure: bool = False) -> Grade:
    """A verdict of right or wrong; right ones are sure."""
    return Grade(float(correct), correct, correct or is_sure)


def accuracy_score(items: Sequence[BenchmarkItem], correct: Sequence[bool]) -> dict[str, float]:
    """Share of right answers on a 0-100 scale, as most benchmarks have it."""
    return {"score": 100.0 * sum(correct) / len(items)}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark in VLMEvalKit's layout.

    `files` are the names its TSV goes by. `columns` must be in the file, besides index, question, answer and, unless
    `images` is False, an image.
    `score` makes the official scores (`score` on 0-100, and parts) of one answer per item, in the items' order.
    `group` names what belongs together (MME's pairs): a limited evaluation never tears a group, and comparisons of
    models draw whole groups. `metric` is the name of a shared grading rule, empty where the benchmark has its own.
    `rule` says what is official; only the paper's benchmarks have one. `hidden_key` reads the key from the row's other
    cells where the table may have no column for it.
    """

    name: str
    files: tuple[str, ...]
    prompt: Callable[[BenchmarkItem], str]
    grade: Callable[[BenchmarkItem, str], Grade]
    columns: tuple[str, ...] = ()
    question_column: str = "question"
    answer_column: str = "answer"
    category_column: str = "category"
    judge: JudgeUse = "none"
    score: Callable[[Sequence[BenchmarkItem], Sequence[bool]], dict[str, float]] = accuracy_score
    group: Callable[[BenchmarkItem], str] = lambda item: item.index
    metric: str = ""
    images: bool = True
    rule: OfficialRule | None = None
    hidden_key: Callable[[Mapping[str, str]], str] | None = None

    @property
    def grader(self) -> str:
        """Name of the grading rule: the metric's, or the benchmark's own."""
        return self.metric or self.name
