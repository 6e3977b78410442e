r"""MathVerse (Zhang et al., arXiv 2403.14624; repository ZrrSkywalker/MathVerse), testmini.

Official metric: one LLM call extracts the answer, a second one compares it with the key. The rules here grade letters
and expressions by themselves and leave what they are not sure of to the judge's comparison, when there is one. The
figure by `problem_version` (how much of the problem is only in the picture) comes with the score.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Sequence

from tinyr1v_ray.evaluation.benchmarks.choices import choice_letter
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem, Grade, accuracy_score, exact_grade
from tinyr1v_ray.evaluation.benchmarks.mathvision import grade_expression
from tinyr1v_ray.rewards.extract import extract_answer

_OPTION = re.compile(r"^\s*\(?([A-H])\)?\s*[:.]\s*(.+?)\s*$", re.MULTILINE)


def options_in(question: str) -> dict[str, str]:
    """The options that follow `Choices:`, a line each.

    >>> options_in("Find BC.\\nChoices:\\nA:2\\nB:4 cm")
    {'A': '2', 'B': '4 cm'}
    """
    _, _, listed = question.partition("Choices:")
    return dict(_OPTION.findall(listed))


def grade(item: BenchmarkItem, text: str) -> Grade:
    """By letter for multiple choice, else as mathematics."""
    if item.columns.get("question_type", "").startswith("multi"):
        full_question = item.columns.get("question_for_eval") or item.question
        letters = dict.fromkeys("ABCD", "") | options_in(full_question)
        letter = choice_letter(text, letters)
        return exact_grade(bool(letter) and letter == item.answer.strip().upper(), bool(letter))
    return grade_expression(extract_answer(text), item.answer)


def score(items: Sequence[BenchmarkItem], correct: Sequence[bool]) -> dict[str, float]:
    """Accuracy, and accuracy by problem version."""
    by_version: dict[str, list[bool]] = defaultdict(list)
    for item, right in zip(items, correct, strict=True):
        by_version[_version(item)].append(right)
    parts = {version: 100.0 * sum(row) / len(row) for version, row in sorted(by_version.items()) if version}
    return accuracy_score(items, correct) | parts


def _version(item: BenchmarkItem) -> str:
    if version := item.columns.get("problem_version", ""):
        return version
    try:
        metadata = ast.literal_eval(item.columns.get("metadata") or "{}")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    return str(metadata.get("problem_version", "")) if isinstance(metadata, dict) else ""


def group(item: BenchmarkItem) -> str:
    """The problem that the versions are of; the item itself where the table does not say."""
    return item.columns.get("problem_index") or item.index


MATHVERSE = Benchmark(
    name="mathverse",
    files=("MathVerse_MINI.tsv", "MathVerse_MINIV.tsv", "MathVerse_MINIVOnly.tsv"),
    prompt=lambda item: item.question,
    grade=grade,
    columns=("question_type",),
    judge="compare",
    score=score,
    group=group,
)
