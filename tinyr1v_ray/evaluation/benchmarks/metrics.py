"""Metrics by name for benchmarks of the user and for the miniature's pools."""

from __future__ import annotations

from collections.abc import Callable

from tinyr1v_ray.evaluation.benchmarks import chartqa, choices, mathvision, mme, ocrbench, typed
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem, Grade, exact_grade
from tinyr1v_ray.rewards.extract import extract_answer
from tinyr1v_ray.rewards.score import ANSWER_TERMS
from tinyr1v_ray.rewards.structured import normalised

_RELATIVE_TOLERANCE = 0.05


def grade_exact(item: BenchmarkItem, text: str) -> Grade:
    """Equal text, without regard to case and surrounding marks."""
    answer = extract_answer(text)
    return exact_grade(bool(normalised(answer)) and normalised(answer) == normalised(item.answer))


def grade_math(item: BenchmarkItem, text: str) -> Grade:
    """Equal as mathematics."""
    return mathvision.grade_expression(extract_answer(text), item.answer)


def grade_by_reward(domain: str) -> Callable[[BenchmarkItem, str], Grade]:
    """The answer term that a domain is trained on, which is partial for OCR; right is a full one."""

    def grade(item: BenchmarkItem, text: str) -> Grade:
        value = ANSWER_TERMS[domain](text, item.answer, _RELATIVE_TOLERANCE)
        return Grade(value, value == 1.0, is_sure=True)

    return grade


METRICS: dict[str, Callable[[BenchmarkItem, str], Grade]] = {
    "exact": grade_exact,
    "choice": choices.grade_choice,
    "relaxed": chartqa.grade,
    "math": grade_math,
    "contains": ocrbench.grade,
    "yes_no": mme.grade,
    "typed": typed.typed_grade,
    **{f"reward_{domain}": grade_by_reward(domain) for domain in ANSWER_TERMS},
}
"""What a user's benchmark names as its metric; `reward_DOMAIN` is what training rewards, without its format term."""
