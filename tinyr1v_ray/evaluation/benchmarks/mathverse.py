"""MathVerse: one problem in versions that leave more and more of it to the picture."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Sequence

from tinyr1v_ray.evaluation.benchmarks.choices import LENIENT, STRICT, grade_letter
from tinyr1v_ray.evaluation.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Grade,
    accuracy_score,
    question_text,
)
from tinyr1v_ray.evaluation.benchmarks.mathvision import grade_expression
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule
from tinyr1v_ray.rewards.extract import extract_answer

RULE = OfficialRule(
    source="Zhang et al., arXiv 2403.14624; ZrrSkywalker/MathVerse, and VLMEvalKit, utils/mathverse.py as in "
    "ms-vlmeval 0.0.20; testmini",
    metric="one LLM call extracts the answer, a second one compares it with the key. Here rules grade letters "
    "and expressions, and a judge compares where they are not sure. The score by problem version comes"
    " with the score",
    prompt="the table's question as it is, as in VLMEvalKit",
    lenient=(
        *LENIENT,
        "a number counts with its unit and in a sentence that leaves its value alone",
    ),
    strict=(
        *STRICT,
        "units are not converted (0.5 m and 50 cm), and other words do not count; the judge may accept both",
    ),
)
_VERSIONS = {
    "": "V",
    "_Vision_Only": "VOnly",
    "_Vision_Dominant": "VDom",
    "_Vision_Intensive": "VInt",
    "_Text_Lite": "TLite",
    "_Text_Dominant": "TDom",
}
FILES = tuple(f"MathVerse_MINI{name}.tsv" for version in _VERSIONS.items() for name in version)
"""VLMEvalKit's names, of the table of all versions first; after each the name under which it is downloaded."""
_LISTED_BY = re.compile(r"\b(?:choices?|options?)\s*:", re.IGNORECASE)
_OPTION = re.compile(r"^\s*\(?([A-H])\)?\s*[:.)]\s*(.+?)\s*$", re.MULTILINE)


def options_in(question: str) -> dict[str, str]:
    """The options that follow `Choices:`, `Choice:` or `Options:`, a line each.

    >>> options_in("Find BC.\\nChoices:\\nA:2\\nB:4 cm")
    {'A': '2', 'B': '4 cm'}
    """
    listed_by = _LISTED_BY.search(question)
    return dict(_OPTION.findall(question[listed_by.end() :])) if listed_by else {}


def grade(item: BenchmarkItem, text: str) -> Grade:
    """By letter for multiple choice, else as mathematics."""
    if item.columns.get("question_type", "").startswith("multi"):
        full_question = item.columns.get("question_for_eval") or item.question
        return grade_letter(text, dict.fromkeys("ABCD", "") | options_in(full_question), item.answer)
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
    files=FILES,
    prompt=question_text,
    grade=grade,
    columns=("question_type",),
    judge="compare",
    score=score,
    group=group,
    rule=RULE,
)
