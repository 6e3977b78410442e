"""Answers about charts, tables and documents: texts, numbers with their trimmings, and lists of both."""

from __future__ import annotations

import ast
import contextlib
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from tinyr1v_ray.rewards.expression import can_be_paired
from tinyr1v_ray.rewards.extract import read_answer
from tinyr1v_ray.rewards.notation import plain
from tinyr1v_ray.rewards.quantity import DECIMAL, Quantity, parse_number, parse_quantity
from tinyr1v_ray.rewards.texts import spelling

_TRUTHS = {"true": "yes", "false": "no"}
_SEPARATOR = re.compile(r"\s*[;|\n]\s*|\s*,(?!\d{3}(?!\d))\s*(?:(?:and|&)\s+)?|\s+(?:and|&)\s+")
_LETTER_SCALES = {"k": "thousand", "K": "thousand", "M": "million", "B": "billion", "T": "trillion", "m": "million"}
_LETTER_SCALE = re.compile(
    rf"([-+]?\s*(?P<currency>[$€£¥₹]|US\$)?\s*{DECIMAL})\s*(?P<letter>[kKMBTm])(?:n\b)?(?=[^\w/^]|$)"
)
_IN_ACCOUNTS = re.compile(r"\(([^()]*\d[^()]*)\)")
_MAX_CHARACTERS = 3000
_YEAR = re.compile(r"(?:1[89]\d\d|20\d\d|2100)(?:\.0*)?")


def structured_match(predicted: str, reference: str, relative_tolerance: float) -> bool:
    """Whether two answers are the same entry, or lists of the same entries.

    Both are read alike (`extract.read_answer`). Entries are the same when their texts are, after normalisation, or when
    they are numbers within `relative_tolerance` of the reference (ChartQA's relaxed accuracy: 5 %). A bare year is
    exact, however it is written (2012, 2012.0): 5 % of a year is a century.

    A list is separated by commas, semicolons, bars, lines or "and", with or without [...] or {...} around it. It is a
    set: the order does not count. In (...), as in coordinates, it is a sequence: the order counts. A prediction of more
    than 3,000 characters is equal as text only.

    >>> structured_match("$1,234", "1234.0", 0.05), structured_match("10.4", "10", 0.05)
    (True, True)
    >>> structured_match("11", "10", 0.05), structured_match("$1.2M", "1.2 million", 0.05)
    (False, True)
    >>> structured_match("2011", "2012", 0.05), structured_match("Peru, Chile", "[Chile; Peru]", 0.05)
    (False, True)
    >>> structured_match("(2, 1)", "(1, 2)", 0.05)
    False
    """
    predicted, reference = read_answer(predicted), read_answer(reference)
    if predicted == reference or len(predicted) > _MAX_CHARACTERS:
        return predicted == reference and bool(normalised(reference))
    if _fits(_AnswerEntry.read(predicted), _AnswerEntry.read(reference), relative_tolerance):
        return True
    given, wanted = _entries(predicted), _entries(reference)
    is_list = len(wanted) > 1 or _is_bracketed(reference) or _is_bracketed(predicted)
    if not is_list or len(given) != len(wanted):
        return False

    def fits(have: _AnswerEntry, want: _AnswerEntry) -> bool:
        return _fits(have, want, relative_tolerance)

    if reference.startswith("("):
        return predicted.startswith("(") and all(map(fits, given, wanted))
    return can_be_paired(given, wanted, fits)


def relaxed_match(predicted: str, reference: str, relative_tolerance: float) -> bool:
    """Equal text after normalisation, or numbers within the tolerance of the reference (0 only matches 0).

    A percentage also matches the same number without the sign, and the fraction it stands for. A unit may be missing
    on one side, but two units must measure the same; then the quantities are compared.
    """
    if normalised(predicted) == normalised(reference):
        return bool(normalised(reference))
    return _within(parse_amount(predicted), parse_amount(reference), relative_tolerance)


def _within(given: Quantity, wanted: Quantity, relative_tolerance: float) -> bool:
    left, right = given.number, wanted.number
    if left is None or right is None or not given.is_comparable_with(wanted):
        return False
    if given.unit and wanted.unit:
        left, right = left * given.unit.factor, right * wanted.unit.factor
    values = [left]
    if given.is_percentage and not wanted.is_percentage:
        values.append(left / 100)
    elif wanted.is_percentage and not given.is_percentage:
        values.append(left * 100)
    slack = (Fraction(str(relative_tolerance)) + Fraction(1, 10**9)) * abs(right)
    return any(abs(value - right) <= slack for value in values)


@dataclass(frozen=True)
class _AnswerEntry:
    """One answer of a list, read once however often it is compared."""

    text: str
    spelling: str
    quantity: Quantity
    is_year: bool

    @classmethod
    def read(cls, text: str) -> _AnswerEntry:
        text = plain(read_answer(text))
        is_year = _YEAR.fullmatch(text.removesuffix("年").strip()) is not None
        return cls(normalised(text), spelling(text).casefold(), parse_amount(text), is_year)


def _fits(given: _AnswerEntry, wanted: _AnswerEntry, relative_tolerance: float) -> bool:
    if wanted.text and (given.text == wanted.text or given.spelling == wanted.spelling):
        return given.quantity.is_comparable_with(wanted.quantity)
    return _within(given.quantity, wanted.quantity, 0.0 if wanted.is_year else relative_tolerance)


def parse_amount(text: str) -> Quantity:
    """The quantity that a text is, as a whole; its value is no number when it is none.

    Beside the forms of `parse_quantity`: a letter as scale (1.2M, 3k, $5m; `5 m` are metres), and parentheses that mean
    negative, as in accounts.

    >>> parse_amount("$ 1.5M").number, parse_amount("(12.5%)").number, parse_amount("12 km").unit.factor
    (Fraction(1500000, 1), Fraction(-25, 2), Fraction(1000, 1))
    >>> parse_amount("12 and 13").number is None, parse_amount("A12").number is None
    (True, True)
    """
    text = plain(text).rstrip(".")
    account = _IN_ACCOUNTS.fullmatch(text)
    text = account[1].strip() if account else text
    scaled = _LETTER_SCALE.match(text)
    if scaled and (scaled["letter"] != "m" or scaled["currency"]):
        text = f"{scaled[1]} {_LETTER_SCALES[scaled['letter']]}{text[scaled.end() :]}"
    quantity = parse_quantity(text)
    if not account or parse_number(quantity.value) is None:
        return quantity
    return Quantity(f"-{quantity.value}", quantity.is_percentage, quantity.scale, quantity.unit)


def normalised(text: str) -> str:
    """Compatible characters, one case, single spaces, no surrounding quotes or full stop; true is yes, false is no."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    text = text.strip("\"'“”‘’`").removesuffix(".").strip()
    return _TRUTHS.get(text, text)


def _is_bracketed(text: str) -> bool:
    return text[:1] + text[-1:] in ("[]", "{}", "()")


def _entries(text: str) -> list[_AnswerEntry]:
    """What a list holds; quoted entries of a Python list as they are, else what stands between separators."""
    text = text.strip()
    values: object = None
    if _is_bracketed(text):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            values = ast.literal_eval(text)
        text = text[1:-1]
    if isinstance(values, list | tuple | set) and all(isinstance(value, str) for value in values):
        texts = list(values)
    else:
        texts = _SEPARATOR.split(text.strip())
    return [_AnswerEntry.read(entry) for entry in texts if entry.strip()]
