"""MATH-Vision: competition problems, with options or with a free answer."""

from __future__ import annotations

from tinyr1v_ray.evaluation.benchmarks.choices import LENIENT, STRICT, grade_letter
from tinyr1v_ray.evaluation.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Grade,
    exact_grade,
    question_text,
)
from tinyr1v_ray.evaluation.benchmarks.numeric import is_bounded, plain_number, the_number
from tinyr1v_ray.evaluation.benchmarks.options import option_list
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule
from tinyr1v_ray.rewards.extract import extract_answer
from tinyr1v_ray.rewards.math_answer import math_equal

RULE = OfficialRule(
    source="Wang et al., arXiv 2402.14804; mathllm/MATH-V, evaluation/ at 1d36118, and VLMEvalKit, "
    "utils/mathv.py, which is followed where they differ",
    metric="the boxed or concluding answer is the key's letter, or equals the key as text, as a number to "
    "1e-6, or as a LaTeX expression. VLMEvalKit's LLM extracts the answer first where that fails; here "
    "it is the judge's part",
    prompt="the question without its <image> marks, and the options unless it lists them; MATH-V asks for a "
    "box besides",
    lenient=(
        *LENIENT,
        "a number counts with its unit and in a sentence that leaves its value alone",
    ),
    strict=(
        *STRICT,
        "numbers are equal to 1e-6; MATH-V rounds both to two decimals",
    ),
)


def prompt(item: BenchmarkItem) -> str:
    """The question; its options, unless the question lists them already."""
    options, question = option_list(item.columns.get("choices", "")), question_text(item)
    if not options or "(A)" in question:
        return question
    lines = [question, *(f"({letter}) {text}" for letter, text in options.items())]
    return "\n".join([*lines, "Answer with the letter of the right option."])


def grade(item: BenchmarkItem, text: str) -> Grade:
    """By letter where there are options, else as mathematics."""
    options = option_list(item.columns.get("choices", ""))
    if options:
        return grade_letter(text, options, item.answer)
    return grade_expression(extract_answer(text), item.answer)


def grade_expression(answer: str, key: str) -> Grade:
    """Equal as mathematics; where the key is a number, the one that the answer gives counts, its unit does not.

    A plain number is sure even when it is wrong.
    """
    wanted, given = plain_number(key), the_number(answer)
    if wanted is not None and given is not None and abs(given - wanted) < 1e-6:
        return exact_grade(True)
    if wanted is not None and plain_number(answer) is not None:
        return exact_grade(False, is_sure=True)
    return exact_grade(math_equal(answer, key) and (wanted is None or not is_bounded(answer)))


MATHVISION = Benchmark(
    name="mathvision",
    files=("MathVision_MINI.tsv", "MathVision.tsv"),
    prompt=prompt,
    grade=grade,
    columns=("choices",),
    judge="extract",
    rule=RULE,
)
