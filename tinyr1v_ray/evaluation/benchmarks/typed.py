"""Answers of a declared type (MathVista, OCR-Reasoning): a choice, an integer, a decimal number, a list or a text."""

from __future__ import annotations

from fractions import Fraction

from tinyr1v_ray.evaluation.benchmarks.choices import grade_letter
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem, Grade, exact_grade, question_text
from tinyr1v_ray.evaluation.benchmarks.latex import compact
from tinyr1v_ray.evaluation.benchmarks.numeric import lists_in, plain_number, the_number
from tinyr1v_ray.evaluation.benchmarks.options import letter_of_text, option_list
from tinyr1v_ray.rewards.extract import extract_answer
from tinyr1v_ray.rewards.structured import normalised

_REQUESTS = {
    "integer": "Give the final answer as an integer.",
    "list": "Give the final answer as a list of numbers, such as [1, 2, 3].",
}


def typed_prompt(item: BenchmarkItem) -> str:
    """The question, its options or the form of its answer. A question that asks for a form already is left alone."""
    question = question_text(item)
    if "hint:" in question.casefold():
        return question
    options = option_list(item.columns.get("choices", ""))
    if options:
        lines = [question, *(f"({letter}) {text}" for letter, text in options.items())]
        return "\n".join([*lines, "Answer with the letter of the right option."])
    kind = item.columns.get("answer_type", "")
    request = _REQUESTS.get(kind, "")
    precision = _precision(item)
    if kind == "float" and precision is not None:
        request = f"Give the final answer as a number with {precision} decimal places."
    return f"{question}\n{request}" if request else question


def typed_grade(item: BenchmarkItem, text: str, compact_texts: bool = False) -> Grade:
    """Grade by `question_type` and `answer_type`. `compact_texts` ignores white space in texts (OCR-Reasoning)."""
    options = option_list(item.columns.get("choices", ""))
    if item.columns.get("question_type") == "multi_choice" and options:
        key = item.columns.get("answer_option", "").strip() or letter_of_text(item.answer, options) or item.answer
        return grade_letter(text, options, key)
    answer = extract_answer(text)
    kind = item.columns.get("answer_type", "")
    if kind in ("integer", "float"):
        return _grade_number(item, answer, kind)
    if kind == "list":
        return exact_grade(bool(answer) and _same_list(answer, item.answer))
    given, wanted = normalised(answer), normalised(item.answer)
    if compact_texts:
        given, wanted = given.replace(" ", ""), wanted.replace(" ", "")
    return exact_grade(bool(given) and given == wanted)


def _grade_number(item: BenchmarkItem, answer: str, kind: str) -> Grade:
    """An integer is equal as a number; a decimal is rounded to the item's precision first. A bare number is sure."""
    given, wanted = the_number(answer), the_number(item.answer)
    if given is None or wanted is None:
        return exact_grade(False)
    precision = _precision(item)
    if kind == "float" and precision is not None:
        correct = round(given, precision) == round(wanted, precision) or _rounds_as_float(given, wanted, precision)
    else:
        correct = given == wanted
    return exact_grade(correct, plain_number(answer) is not None)


def _rounds_as_float(given: Fraction, wanted: Fraction, precision: int) -> bool:
    return round(float(given), precision) == float(wanted)


def _same_list(answer: str, key: str) -> bool:
    """Equal numbers in their order; where the key has none, or not them alone, equal texts but for blanks."""
    given, wanted = lists_in(answer), lists_in(key)
    return bool(given & wanted) if wanted else compact(answer) == compact(key)


def _precision(item: BenchmarkItem) -> int | None:
    number = plain_number(item.columns.get("precision", ""))
    return None if number is None or number < 0 else int(number)
