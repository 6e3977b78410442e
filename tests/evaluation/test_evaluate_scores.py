"""Figures from stored answers, worked out by hand; and hostile answers under the deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tinyr1v_ray.evaluation.benchmarks.grading import Grader
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS
from tinyr1v_ray.evaluation.benchmarks.scores import average_score, benchmark_scores
from tinyr1v_ray.evaluation.benchmarks.stored import StoredAnswer, StoredItem

MMSTAR, MATHVISION = TEN_BENCHMARKS["mmstar"], TEN_BENCHMARKS["mathvision"]
ITEMS = [
    StoredItem(BenchmarkItem("a", "?", "A", {"A": "x", "B": "y"}, "logic"), "?"),
    StoredItem(BenchmarkItem("b", "?", "B", {"A": "x", "B": "y"}, "logic"), "?"),
    StoredItem(BenchmarkItem("c", "?", "B", {"A": "x", "B": "y"}, "fine"), "?"),
    StoredItem(BenchmarkItem("d", "?", "", {"A": "x", "B": "y"}, "fine", failure="answer key is empty"), "?"),
]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as running:
        yield running


def answer(index: str, sample: int, text: str, num_tokens: int, started_s: float, finished_s: float) -> StoredAnswer:
    return StoredAnswer("mmstar", index, sample, text, num_tokens, "stop", started_s, finished_s)


ANSWERS = [
    answer("a", 0, "A", 10, 100.0, 102.0),
    answer("a", 1, "B", 20, 100.0, 102.0),
    answer("b", 0, "B", 30, 101.0, 104.0),
    answer("b", 1, "B", 40, 101.0, 104.0),
    replace(answer("c", 0, "", 50, 110.0, 111.0), finish="length"),
    answer("c", 1, "I cannot say", 60, 110.0, 111.0),
    replace(answer("d", 0, "", 0, 0.0, 0.0), failure="answer key is empty", finish="not asked"),
    replace(answer("d", 1, "", 0, 0.0, 0.0), failure="answer key is empty", finish="not asked"),
]


def test_two_samples_of_four_items(grader: Grader) -> None:
    """Right: a0, b0, b1 of 8. Tokens 210 in all. Busy from 100 to 104 and from 110 to 111."""
    graded = grader.grade(MMSTAR, ITEMS, ANSWERS)
    scores = benchmark_scores(MMSTAR, ITEMS, graded)
    assert [row.correct for row in graded] == [True, False, True, True, False, False, False, False]
    assert scores.score == pytest.approx(100 * 3 / 8) and scores.accuracy.value == pytest.approx(3 / 8)
    assert scores.accuracy.low <= 3 / 8 <= scores.accuracy.high and scores.num_samples == 2
    assert scores.by_category == {"fine": 0.0, "logic": 0.75}
    assert scores.speed.tokens_per_answer is not None and scores.speed.tokens_per_answer.value == 35.0
    assert scores.speed.tokens == 210 and scores.speed.tokens_per_correct == 70.0
    assert scores.speed.tokens_of_correct == pytest.approx((10 + 30 + 40) / 3)
    assert scores.speed.busy_s == 5.0 and scores.speed.tokens_per_s == 42.0
    assert scores.speed.latency_mean_s == 2.0 and scores.speed.latency_p50_s == 2.0
    counts = scores.counts
    assert (counts.items, counts.answers, counts.unscorable, counts.empty, counts.truncated) == (4, 8, 2, 1, 1)
    assert counts.by_reason == {"answer key is empty": {"items": 1, "first": ["d"]}}


def test_grading_again_changes_nothing(grader: Grader) -> None:
    graded = grader.grade(MMSTAR, ITEMS, ANSWERS)
    assert grader.grade(MMSTAR, ITEMS, graded) == graded


def test_a_model_that_answers_nothing_scores_nothing(grader: Grader) -> None:
    silent = [replace(row, text="", num_tokens=1) for row in ANSWERS[:6]]
    scores = benchmark_scores(MMSTAR, ITEMS, grader.grade(MMSTAR, ITEMS, silent))
    assert scores.score == 0 and scores.counts.empty == 6
    assert scores.speed.tokens_per_correct is None and scores.speed.tokens_of_correct is None


def test_items_without_answers_count_as_wrong() -> None:
    assert benchmark_scores(MMSTAR, ITEMS, []).score == 0


def test_an_average_says_whether_it_is_the_papers() -> None:
    of_one = benchmark_scores(MMSTAR, ITEMS, [])
    ten = [
        replace(of_one, name=name, score=score) for score, name in zip(range(0, 100, 10), TEN_BENCHMARKS, strict=True)
    ]
    assert average_score(ten) == {"score": 45.0, "benchmarks": list(TEN_BENCHMARKS), "is_papers": True}
    assert average_score(ten[:9])["is_papers"] is False


def test_an_answer_that_hangs_the_parser_costs_itself_alone() -> None:
    """A tower of powers that takes a computer algebra system for ever."""
    items = [StoredItem(BenchmarkItem(str(n), "?", "2^{3}", columns={"choices": "[]"}), "?") for n in range(3)]
    texts = ["8", r"\boxed{9^{9^{9^{9^{9}}}}}", "8"]
    answers = [StoredAnswer("mathvision", str(n), 0, text, 5, "stop", 1.0, 2.0) for n, text in enumerate(texts)]
    start = time.monotonic()
    with Grader(item_timeout_s=2.0) as grader:
        graded = grader.grade(MATHVISION, items, answers)
    assert [row.correct for row in graded] == [True, False, True]
    assert time.monotonic() - start < 60


def test_long_cells_reach_the_rules_or_are_left_out(grader: Grader) -> None:
    columns = {"choices": "[]", "notes": "n" * 100_000}
    item = StoredItem(BenchmarkItem("1", "q" * 100_000, "5", columns=columns), "q")
    raw = StoredAnswer("mathvision", "1", 0, "word " * 20_000 + "\n5", 9, "stop", 1.0, 2.0)
    [graded] = grader.grade(MATHVISION, [item], [raw])
    assert graded.correct


def test_pairs_count_as_pairs_in_the_interval(grader: Grader) -> None:
    """MME's two questions on a picture, always right or wrong together, are one draw and not two."""
    mme = TEN_BENCHMARKS["mme"]
    columns = [{"image_path": f"{n // 2}.jpg"} for n in range(80)]
    items = [StoredItem(BenchmarkItem(f"{n}", "?", "Yes", {}, "color", columns[n]), "?") for n in range(80)]
    answers = [answer(f"{n}", 0, "Yes" if n // 2 % 2 else "No", 1, 0.0, 1.0) for n in range(80)]
    accuracy = benchmark_scores(mme, items, grader.grade(mme, items, answers)).accuracy
    assert accuracy.value == 0.5
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 40), rel=0.1)
