"""ChartQA: questions about charts, answered by a number or a few words."""

from __future__ import annotations

import ast
import math
import re

from tinyr1v_ray.evaluation.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Grade,
    exact_grade,
    question_text,
)
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule
from tinyr1v_ray.rewards.extract import extract_answer, read_answer

RULE = OfficialRule(
    source="Masry et al., arXiv 2203.10244, section 5.1 after Methani et al. 2020; google-research/pix2struct,"
    " metrics.py, whose code VLMEvalKit (utils/vqa_eval.py) has too; the test split",
    metric="relaxed accuracy: a number may be off by 5 % of the key, a text is equal without regard to case; "
    "p% is p/100",
    prompt="the question, and that the answer is a single word, number or phrase; the official words differ a little",
    lenient=(
        "tags, a box, a lead-in, quotes and a final full stop come off, those of the key too",
        "currency signs and thousands separators come off a number",
    ),
    strict=("only what follows the reasoning is read",),
)
RELATIVE_TOLERANCE = 0.05
_SEPARATED = re.compile(r"-?[$€£¥]?\s?-?(\d{1,3}(,\d{3})+|\d+)(\.\d*)?\s?%?")


def prompt(item: BenchmarkItem) -> str:
    """The question, and that the answer is short."""
    return f"{question_text(item)}\nAnswer with a single word, number or phrase."


def keys(cell: str) -> list[str]:
    """The accepted answers of a cell: one text, or a Python list of them; empty ones are none."""
    if cell.startswith("[") and cell.endswith("]"):
        try:
            values = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            values = [cell]
        if isinstance(values, list | tuple):
            return [str(value) for value in values if str(value).strip()]
    return [cell] if cell.strip() else []


def relaxed_equal(answer: str, key: str, relative_tolerance: float = RELATIVE_TOLERANCE) -> bool:
    """Within the tolerance of the key where both are numbers and the key is not 0, else the same text, both unwrapped.

    >>> relaxed_equal("104.9", "100"), relaxed_equal("105.1", "100"), relaxed_equal("25%", "0.25")
    (True, False, True)
    """
    answer, key = _plain(answer), _plain(key)
    given, wanted = _number(answer), _number(key)
    if given is not None and wanted:
        return abs(given - wanted) / abs(wanted) <= relative_tolerance
    return answer.lower() == key.lower()


def grade(item: BenchmarkItem, text: str) -> Grade:
    """Right when it is relaxedly equal to one of the keys."""
    answer = extract_answer(text)
    correct = bool(answer) and any(relaxed_equal(answer, key) for key in keys(item.answer))
    return exact_grade(correct, is_sure=True)


def _plain(text: str) -> str:
    """Unwrapped; a number without currency signs and thousands separators."""
    text = read_answer(text)
    return re.sub(r"[$€£¥,\s]", "", text) if _SEPARATED.fullmatch(text) else text


def _number(text: str) -> float | None:
    try:
        value = float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


CHARTQA = Benchmark(
    name="chartqa", files=("ChartQA_TEST.tsv",), prompt=prompt, grade=grade, category_column="split", rule=RULE
)
