"""OCRBench: reading text, of scenes, documents, forms and handwritten formulas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tinyr1v_ray.evaluation.benchmarks.chartqa import keys
from tinyr1v_ray.evaluation.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Grade,
    accuracy_score,
    exact_grade,
    question_text,
)
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule
from tinyr1v_ray.rewards.extract import TAGGED_ANSWER, after_reasoning

RULE = OfficialRule(
    source="Liu et al., arXiv 2305.07895; Yuliang-Liu/MultimodalOCR, and VLMEvalKit, image_vqa.py; 1,000 items",
    metric="an answer is right when it contains one of the keys, without regard to case and line breaks; in "
    "handwritten formulas white space does not count and case does. The score is the number of right "
    "answers, here divided by 10",
    prompt="the table's question as it is",
    strict=(
        "only the tagged answer, or else what follows the reasoning, is searched: in reasoning every guess would count",
    ),
)
EXPRESSIONS = "Handwritten Mathematical Expression Recognition"
_RECOGNITION = "Recognition"


def grade(item: BenchmarkItem, text: str) -> Grade:
    """Right when a key is contained in the tagged answer, or else in what follows the reasoning."""
    conclusion = after_reasoning(text)
    tagged = TAGGED_ANSWER.findall(conclusion)
    answer = (tagged[-1] if tagged else conclusion).strip()
    prepared = [_prepared(key, item.category) for key in keys(item.answer)]
    correct = any(key and key in _prepared(answer, item.category) for key in prepared)
    return exact_grade(correct, is_sure=True)


def score(items: Sequence[BenchmarkItem], correct: Sequence[bool]) -> dict[str, float]:
    """Share of right answers on 0-100, and the number of right ones in the five official groups."""
    counts: dict[str, float] = defaultdict(float)
    for item, right in zip(items, correct, strict=True):
        is_text = item.category.endswith(_RECOGNITION) and item.category != EXPRESSIONS
        counts["Text Recognition" if is_text else item.category] += right
    return accuracy_score(items, correct) | {name: counts[name] for name in sorted(counts) if name}


def _prepared(text: str, category: str) -> str:
    text = text.strip().replace("\n", " ")
    return text.replace(" ", "") if category == EXPRESSIONS else text.lower()


OCRBENCH = Benchmark(
    name="ocrbench", files=("OCRBench.tsv",), prompt=question_text, grade=grade, score=score, rule=RULE
)
