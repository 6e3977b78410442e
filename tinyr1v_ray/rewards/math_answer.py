r"""Mathematical answers: whether two mean the same.

Both are read alike (`extract.read_answer`, `notation.plain`). Then the first rule that applies decides:

1. equal text is equal; of words the case does not count, of expressions it does;
2. a reference of option letters is a choice (`options`);
3. lists (`2, 3`, `x=2 or x=3`, `\{1,2\}`) are equal when their entries are, in any order; tuples and intervals are not
   lists;
4. words, names, formulas, dates, times and ranges are equal as text only. As expressions, `tea` would be `eat`, `H2O`
   be `HO2`, `2021-05-06` be 2010 and `3-4 hours` be -1;
5. quantities: a unit may be missing on one side, two must agree, and then the values are compared (`quantity`,
   `units`); a percentage is also the same number without the sign, and the fraction it stands for;
6. a name before the last equals sign comes off (`AB = 5`, `f(x) = 2x`) where the other side has none;
7. numbers are exact, decimals right to six digits; what is no number is compared as an expression (`expression`).
"""

from __future__ import annotations

import re
from fractions import Fraction

from tinyr1v_ray.rewards.expression import can_be_paired, is_rounded, same_expression, within_rounding
from tinyr1v_ray.rewards.extract import read_answer
from tinyr1v_ray.rewards.notation import plain
from tinyr1v_ray.rewards.options import chosen_letters, labelled, reference_letters
from tinyr1v_ray.rewards.quantity import Quantity, parse_number, parse_quantity
from tinyr1v_ray.rewards.texts import is_text, same_text, spelling

_MAX_CHARACTERS = 300
_SEPARATOR = re.compile(
    r"\s*(?:,(?!\d{3}(?!\d))|;)\s*(?:(?:and|or)\b)?|\s+(?:and|or)\s+|(?<=[\d)}])(?:and|or)(?=[\d(\\])"
)
_BRACES = re.compile(r"\\?\{(.*?)\\?\}")
_EQUALS = re.compile(r"(?<![<>!\\=:\s])\s*(?:=|\\(?:approx|in)(?![A-Za-z]))\s*(?![=<>])(?=\S)")
_OPERATOR = re.compile(r"[-+*/^]|\\(?:times|cdot)")
_APPROXIMATED = re.compile(r"(.*\d.*?)\s*\\approx\s*([-+]?[\d.]+)")
_IN_BASE = re.compile(r"(\d+)\s*_\s*\{?(\d{1,2})\}?")


def math_equal(predicted: str, reference: str) -> bool:
    r"""Whether two answers mean the same, by the rules above.

    An empty prediction equals nothing, and neither does one of more than 300 characters that is not the same text:
    no answer is that long, and parsers take minutes over nested brackets.

    >>> math_equal("0.5", r"\frac{1}{2}"), math_equal("(B) 12", "B"), math_equal("tea", "eat"), math_equal("7", "8")
    (True, True, False, False)
    """
    predicted, reference = read_answer(predicted), read_answer(reference)
    if not predicted or not reference:
        return False
    if predicted == reference:
        return True
    if len(predicted) > _MAX_CHARACTERS:
        return False
    given, wanted = plain(predicted), plain(reference)
    if same_text(given, wanted):
        return True
    letters = reference_letters(wanted)
    if letters and (len(letters) == 1 or chosen_letters(given)):
        return chosen_letters(given) == letters
    letter, text = labelled(wanted)
    if not letter:
        return _same_answer(given, wanted)
    chosen, rest = labelled(given)
    if chosen:
        return chosen == letter and _same_answer(rest, text)
    return chosen_letters(given) == {letter} or _same_answer(given, text)


def _same_answer(given: str, wanted: str) -> bool:
    entries = _entries(given), _entries(wanted)
    if len(entries[0]) > 1 or len(entries[1]) > 1:
        if len(entries[0]) == len(entries[1]):
            return can_be_paired(entries[0], entries[1], _same_entry)
        if len(entries[0]) > 1 < len(entries[1]) and r"\pm" not in given + wanted:
            return False
        return same_expression(_as_list(given), _as_list(wanted))
    return _same_entry(entries[0][0], entries[1][0])


def _entries(text: str) -> list[str]:
    """What a list holds, split outside of brackets; a text that is no list is the one entry."""
    braced = _BRACES.fullmatch(text)
    inside = braced[1] if braced and "," in braced[1] else text
    entries, start, depth = [], 0, 0
    separators = {match.start(): match for match in _SEPARATOR.finditer(inside)}
    for position, sign in enumerate(inside):
        depth += (sign in "([{") - (sign in ")]}")
        if not depth and position in separators:
            entries.append(inside[start:position].strip())
            start = separators[position].end()
    entries.append(inside[start:].strip())
    entries = [entry for entry in entries if entry]
    return entries if len(entries) > 1 else [text]


def _as_list(text: str) -> str:
    return re.sub(r"\s+(?:and|or)\s+", ", ", text)


def _same_entry(given: str, wanted: str) -> bool:
    if same_text(given, wanted):
        return True
    readings = _readings(given), _readings(wanted)
    if readings != ([given], [wanted]):
        return any(_same_entry(left, right) for left in readings[0] for right in readings[1])
    given, wanted = _without_name(given, wanted)
    if same_text(given, wanted):
        return True
    given, wanted, same_base = _without_base(given, wanted)
    if not same_base:
        return False
    left, right = parse_quantity(given), parse_quantity(wanted)
    if is_text(given, left) or is_text(wanted, right):
        return False
    return left.is_comparable_with(right) and _same_value(left, right)


def _without_name(given: str, wanted: str) -> tuple[str, str]:
    """Both without the name that one of them gives its value; two names must be equal, so they stay.

    An answer may work its value out (`x = 2 + 3 = 5`). A reference that is an equation, such as `x + y = 5`, is no
    value with a name.
    """
    (name, value), (wanted_name, wanted_value) = _named(given), _named(wanted)
    if name and wanted_name:
        return (value, wanted_value) if spelling(name) == spelling(wanted_name) else (given, wanted)
    if name:
        return value, wanted
    outside_brackets = re.sub(r"\([^()]*\)|\{[^{}]*\}", "", wanted_name)
    is_equation = _OPERATOR.search(outside_brackets) or not re.search(r"[^\W\d_]", wanted_name)
    return given, wanted if is_equation else wanted_value


def _named(text: str) -> tuple[str, str]:
    """What stands before the first equals sign (or `\\in`) outside of brackets, and after the last; else no name."""
    signs = [sign for sign in _EQUALS.finditer(text) if _is_balanced(text[: sign.start()])]
    return (text[: signs[0].start()], text[signs[-1].end() :]) if signs else ("", text)


def _is_balanced(text: str) -> bool:
    return sum(sign in "([{" for sign in text) == sum(sign in ")]}" for sign in text)


def _without_base(given: str, wanted: str) -> tuple[str, str, bool]:
    """Both without the base that digits are written in (`1010_2`), which may be missing on one side like a unit."""
    left, right = _IN_BASE.fullmatch(given), _IN_BASE.fullmatch(wanted)
    agree = not left or not right or left[2] == right[2]
    return left[1] if left else given, right[1] if right else wanted, agree


def _readings(text: str) -> list[str]:
    r"""The exact value of `2\sqrt{3} \approx 3.46`, and the decimal if it is that value rounded; else the text."""
    match = _APPROXIMATED.fullmatch(text)
    if match is None:
        return [text]
    return [match[1], match[2]] if is_rounded(match[2], match[1]) else [match[1]]


def _same_value(given: Quantity, wanted: Quantity) -> bool:
    factors = [Fraction(given.scale, wanted.scale)]
    if given.unit and wanted.unit:
        factors[0] *= given.unit.factor / wanted.unit.factor
    if given.is_percentage != wanted.is_percentage:
        factors.append(factors[0] / 100 if given.is_percentage else factors[0] * 100)
    left, right = parse_number(given.value), parse_number(wanted.value)
    if left is not None and right is not None:
        return any(within_rounding(left * factor, right) for factor in factors)
    return same_expression(given.value, wanted.value, factors)
