"""MATH-Vision (Wang et al., arXiv 2402.14804; repository mathllm/MATH-V): competition problems.

Official metric: rules. The boxed or concluding answer is the key's letter, or equals the key as text, as a number to
1e-6, or as a LaTeX expression. VLMEvalKit adds an LLM that extracts the answer where that fails; it is the judge's part
here, optional. A unit after a number does not count.
"""

from __future__ import annotations

from tinyr1v_ray.evaluation.benchmarks.choices import choice_letter, option_list
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem, Grade, exact_grade
from tinyr1v_ray.evaluation.benchmarks.numeric import plain_number, the_number
from tinyr1v_ray.rewards.extract import extract_answer
from tinyr1v_ray.rewards.math_answer import math_equal


def prompt(item: BenchmarkItem) -> str:
    """The question; its options, unless the question lists them already."""
    options = option_list(item.columns.get("choices", ""))
    if not options or "(A)" in item.question:
        return item.question
    lines = [item.question, *(f"({letter}) {text}" for letter, text in options.items())]
    return "\n".join([*lines, "Answer with the letter of the right option."])


def grade(item: BenchmarkItem, text: str) -> Grade:
    """By letter where there are options, else as mathematics."""
    options = option_list(item.columns.get("choices", ""))
    if options:
        letter = choice_letter(text, options)
        return exact_grade(bool(letter) and letter == item.answer.strip().upper(), bool(letter))
    return grade_expression(extract_answer(text), item.answer)


def grade_expression(answer: str, key: str) -> Grade:
    """Equal as mathematics; where the key is a plain number, the only number of the answer counts, its unit does not.

    A plain number is sure even when it is wrong.
    """
    if math_equal(answer, key):
        return exact_grade(True)
    wanted, given = plain_number(key), the_number(answer)
    if wanted is None or given is None:
        return exact_grade(False)
    return exact_grade(abs(given - wanted) < 1e-6, plain_number(answer) is not None)


MATHVISION = Benchmark(
    name="mathvision",
    files=("MathVision_MINI.tsv", "MathVision.tsv"),
    prompt=prompt,
    grade=grade,
    columns=("choices",),
    judge="extract",
)
