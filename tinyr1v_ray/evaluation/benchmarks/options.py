"""Options of a question: how a table holds them, how they are shown, and which one a value or a key is."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from string import ascii_uppercase

from tinyr1v_ray.evaluation.benchmarks.constants import constant_value
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem, question_text
from tinyr1v_ray.evaluation.benchmarks.latex import compact, shown_text
from tinyr1v_ray.evaluation.benchmarks.letters import listed_letters
from tinyr1v_ray.evaluation.benchmarks.numeric import quantity
from tinyr1v_ray.rewards.math_answer import math_equal
from tinyr1v_ray.rewards.structured import normalised

_IS_MATHEMATICS = re.compile(r"[\\^√π=+*/<>]|\d")
_EQUATION = re.compile(r"[\w)}]\s*=\s*[^,;=]+$")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])|\\[A-Za-z]+")
_MAX_EXPRESSION = 100


def with_options(item: BenchmarkItem, instruction: str = "Answer with the letter of the right option.") -> str:
    """The question, its options a line each, and an instruction; without options the question alone."""
    question = question_text(item)
    if not item.options:
        return question
    hint = item.columns.get("hint", "")
    lines = [f"Hint: {hint}"] if hint else []
    lines += [question, *(f"{letter}. {text}" for letter, text in item.options.items()), instruction]
    return "\n".join(lines)


def option_list(cell: str) -> dict[str, str]:
    """Letters and texts of a cell that holds a Python list of options; nothing when it holds none.

    >>> option_list("['3/11', '8/11']"), option_list("[]"), option_list("")
    ({'A': '3/11', 'B': '8/11'}, {}, {})
    """
    try:
        values = ast.literal_eval(cell.strip() or "[]")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    if not isinstance(values, list | tuple):
        return {}
    return dict(zip(ascii_uppercase, map(str, values), strict=False))


def letters_of_key(key: str, options: Mapping[str, str]) -> frozenset[str]:
    """The options that a key names: by letter, in parentheses or not, by text, or several by letter.

    >>> sorted(letters_of_key("(C)", {})), sorted(letters_of_key("False", {"A": "True", "B": "False"}))
    (['C'], ['B'])
    >>> sorted(letters_of_key("C\\nD", {}))
    ['C', 'D']
    """
    if letters := listed_letters(key):
        return letters
    return frozenset(letter_of_text(key, options)) or listed_letters(key.upper())


def letter_of_text(answer: str, options: Mapping[str, str]) -> str:
    """The only option with this text, but for case and for LaTeX that only sets it; nothing when there is none."""
    for form in (normalised, compact):
        wanted = form(answer)
        letters = [letter for letter, text in options.items() if wanted and form(text) == wanted]
        if len(letters) == 1:
            return letters[0]
    return ""


def letter_of_value(answer: str, options: Mapping[str, str]) -> str:
    r"""The only option that has the answer's text, or its number in an equal or unsaid unit, or equals it.

    >>> letter_of_value(r"\frac{1}{2}", {"A": "1/4", "B": "0.5"}), letter_of_value("24 m", {"A": "24 cm"})
    ('B', '')
    """
    if letter := letter_of_text(answer, options):
        return letter
    answer = answer.rpartition("=")[2] if answer.count("=") == 1 and _EQUATION.search(answer) else answer
    given = quantity(answer)
    if given is not None:
        equal = [letter for letter, text in options.items() if _same_quantity(given, quantity(text))]
    elif (value := constant_value(answer)) is not None:
        equal = [letter for letter, text in options.items() if _same_constant(value, constant_value(text))]
    elif len(answer) <= _MAX_EXPRESSION and _IS_MATHEMATICS.search(answer):
        equal = [letter for letter, text in options.items() if _same_formula(shown_text(answer), shown_text(text))]
    else:
        equal = []
    return equal[0] if len(equal) == 1 else ""


def _same_quantity(given: tuple[Fraction, str], option: tuple[Fraction, str] | None) -> bool:
    if option is None or abs(given[0] - option[0]) >= 1e-6:
        return False
    return not given[1] or not option[1] or given[1] == option[1]


def _same_constant(value: float, option: float | None) -> bool:
    return option is not None and math.isclose(value, option, rel_tol=1e-9)


def _same_formula(answer: str, option: str) -> bool:
    """Equal as algebra; only formulas of the same letters are compared, since that takes some ten milliseconds."""
    given, wanted = (set(_VARIABLE.findall(text)) for text in (answer, option))
    return bool(given) and given == wanted and math_equal(answer, option)
