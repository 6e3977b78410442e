"""Scores of an evaluation, from stored items and answers alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyr1v_ray.evaluation.benchmarks.item import Benchmark
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS
from tinyr1v_ray.evaluation.benchmarks.stored import StoredAnswer, StoredItem
from tinyr1v_ray.evaluation.comparison import crossed_mean
from tinyr1v_ray.evaluation.statistics import Estimate, bootstrap_mean

NUM_NAMED = 5
"""How many items of a kind are named."""


@dataclass(frozen=True)
class Counts:
    """How many items and answers there are, and what was wrong with some. All but the first are of answers.

    `unscorable` items (unreadable image, empty key, prompt too long) stay in every denominator as wrong.
    `by_reason` counts and names them.
    """

    items: int
    answers: int
    unscorable: int
    empty: int
    truncated: int
    judged: int
    judge_failed: int
    by_reason: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Speed:
    """Cost of the answers. Latency is of an item's request, all its samples, beside the others that were under way.

    `tokens_per_correct` is all tokens spent over the number of right answers: what a right answer costs; None without
    any. `tokens_of_correct` is the mean length of the right ones. `tokens_per_s` is over the time in which at least one
    request was under way.
    """

    tokens_per_answer: Estimate | None
    tokens_per_correct: float | None
    tokens_of_correct: float | None
    tokens: int
    busy_s: float
    tokens_per_s: float | None
    answers_per_s: float | None
    latency_mean_s: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None


@dataclass(frozen=True)
class BenchmarkScores:
    """Of one benchmark: `score` is its official score on 0-100, `parts` are its other official scores.

    With K samples an item, score and parts are means over the K runs, and accuracy is avg@K, with a bootstrap interval
    over items, those that belong together drawn together.
    """

    name: str
    score: float
    accuracy: Estimate
    num_samples: int
    parts: Mapping[str, float]
    by_category: Mapping[str, float]
    counts: Counts
    speed: Speed


def benchmark_scores(
    benchmark: Benchmark, items: Sequence[StoredItem], answers: Sequence[StoredAnswer]
) -> BenchmarkScores:
    """All scores; an item without an answer counts as wrong."""
    parts, correct_SN = official_scores(benchmark, items, answers)
    accuracy_N = correct_SN.mean(axis=0)
    by_category: dict[str, list[float]] = defaultdict(list)
    for stored, value in zip(items, accuracy_N, strict=True):
        by_category[stored.item.category].append(float(value))
    return BenchmarkScores(
        benchmark.name,
        parts.pop("score"),
        crossed_mean([accuracy_N[np.newaxis]], [[benchmark.group(stored.item) for stored in items]]),
        len(correct_SN),
        parts,
        {name: float(np.mean(values)) for name, values in sorted(by_category.items()) if name},
        _counts(items, answers),
        answering_speed(answers),
    )


def official_scores(
    benchmark: Benchmark, items: Sequence[StoredItem], answers: Sequence[StoredAnswer]
) -> tuple[dict[str, float], np.ndarray]:
    """`score` and the other official scores, means over the samples; and the verdicts, bool [samples, items]."""
    correct_SN = _verdicts(items, answers)
    plain = [stored.item for stored in items]
    rows = [benchmark.score(plain, row.tolist()) for row in correct_SN]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}, correct_SN


def average_score(scores: Sequence[BenchmarkScores]) -> dict[str, object]:
    """Mean of the official scores, all on 0-100 (MME's sum over 28), and which benchmarks it is of.

    `is_papers` says whether these are exactly the paper's ten; otherwise it is not comparable with the paper's table.
    """
    names = [row.name for row in scores]
    return {
        "score": float(np.mean([row.score for row in scores])),
        "benchmarks": names,
        "is_papers": set(names) == set(TEN_BENCHMARKS) and len(names) == len(TEN_BENCHMARKS),
    }


def _verdicts(items: Sequence[StoredItem], answers: Sequence[StoredAnswer]) -> np.ndarray:
    """bool [samples, items], in the items' order."""
    num_samples = 1 + max((answer.sample for answer in answers), default=0)
    places = {stored.item.index: place for place, stored in enumerate(items)}
    correct_SN = np.zeros((num_samples, len(items)), bool)
    for answer in answers:
        correct_SN[answer.sample, places[answer.prompt_id]] = answer.correct
    return correct_SN


def _counts(items: Sequence[StoredItem], answers: Sequence[StoredAnswer]) -> Counts:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for answer in answers:
        for reason in (answer.failure, answer.judge_failure and f"judge: {answer.judge_failure}"):
            if reason and answer.prompt_id not in by_reason[reason]:
                by_reason[reason].append(answer.prompt_id)
    asked = [answer for answer in answers if answer.num_tokens or not answer.failure]
    return Counts(
        items=len(items),
        answers=len(answers),
        unscorable=sum(bool(answer.failure) for answer in answers),
        empty=sum(not answer.text.strip() for answer in asked),
        truncated=sum(answer.finish == "length" for answer in answers),
        judged=sum(bool(answer.judge_reply) for answer in answers),
        judge_failed=sum(bool(answer.judge_failure) for answer in answers),
        by_reason={
            reason: {"items": len(names), "first": names[:NUM_NAMED]} for reason, names in sorted(by_reason.items())
        },
    )


def answering_speed(answers: Sequence[StoredAnswer]) -> Speed:
    """Cost of stored answers, of one benchmark or of several."""
    asked = [answer for answer in answers if answer.finished_s]
    tokens = [answer.num_tokens for answer in asked]
    of_correct = [answer.num_tokens for answer in asked if answer.correct]
    requests = {(answer.domain, answer.prompt_id): (answer.started_s, answer.finished_s) for answer in asked}
    latencies_s = [finished - started for started, finished in requests.values()]
    busy_s = _union_s(sorted(requests.values()))
    return Speed(
        tokens_per_answer=bootstrap_mean(tokens) if tokens else None,
        tokens_per_correct=sum(tokens) / len(of_correct) if of_correct else None,
        tokens_of_correct=float(np.mean(of_correct)) if of_correct else None,
        tokens=sum(tokens),
        busy_s=busy_s,
        tokens_per_s=sum(tokens) / busy_s if busy_s else None,
        answers_per_s=len(asked) / busy_s if busy_s else None,
        latency_mean_s=float(np.mean(latencies_s)) if latencies_s else None,
        latency_p50_s=float(np.quantile(latencies_s, 0.5)) if latencies_s else None,
        latency_p95_s=float(np.quantile(latencies_s, 0.95)) if latencies_s else None,
    )


def _union_s(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of sorted intervals."""
    total, end = 0.0, float("-inf")
    for started, finished in intervals:
        total += max(0.0, finished - max(started, end))
        end = max(end, finished)
    return total
