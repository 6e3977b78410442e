"""Answers about charts, tables and documents: texts, numbers with their trimmings, and lists of both."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_NUMBER = re.compile(
    r"(?P<open>\()?(?P<sign>[-+−–]?)\s*(?P<currency>[$€£¥])?\s*(?P<sign2>[-−]?)"
    r"(?P<digits>\d{1,3}(?:[,  ]\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?P<exponent>e[-+]?\d+)?"
    r"\s*(?:(?P<scale>k|thousand|mn|million|bn|billion|trillion)\b)?\s*(?P<percent>%|percent|per cent)?(?P<close>\))?"
    r"\s*(?P<unit>[^\d\s,;|.()][^\d,;|()]*)?",
    re.IGNORECASE,
)
_SCALES = {"k": 1e3, "thousand": 1e3, "mn": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9, "trillion": 1e12}
_TRUTHS = {"true": "yes", "false": "no"}
_LIST = re.compile(r"\s*[;|\n]\s*|,\s+")
_YEARS = range(1800, 2101)


@dataclass(frozen=True)
class Quantity:
    """A number as written: its value with scale words applied, whether it is a percentage, and its unit."""

    value: float
    is_percentage: bool
    unit: str


def structured_match(predicted: str, reference: str, relative_tolerance: float) -> bool:
    """Exact match after normalisation, relaxed for numbers.

    Numbers match within `relative_tolerance` of the reference (ChartQA's relaxed accuracy: 5 %), except bare years,
    which match exactly: 5 % of a year is a century. Lists (separated by commas, semicolons, bars or lines) match when
    their entries do, in any order.

    >>> structured_match("$1,234", "1234.0", 0.05), structured_match("10.4", "10", 0.05)
    (True, True)
    >>> structured_match("11", "10", 0.05)
    False
    >>> structured_match("2011", "2012", 0.05), structured_match("Peru, Chile", "Chile; Peru", 0.05)
    (False, True)
    """
    if _entry_match(predicted, reference, relative_tolerance):
        return True
    wanted = [entry for entry in _LIST.split(reference.strip()) if entry]
    given = [entry for entry in _LIST.split(predicted.strip()) if entry]
    if len(wanted) < 2 or len(wanted) != len(given):
        return False
    return _can_be_paired(given, wanted, relative_tolerance)


def relaxed_match(predicted: str, reference: str, relative_tolerance: float) -> bool:
    """Equal text after normalisation, or numbers within the tolerance of the reference (0 only matches 0).

    A percentage also matches the same number without the sign, and the fraction it stands for. A unit may be missing
    on one side, but two units must be the same.
    """
    if normalised(predicted) == normalised(reference):
        return bool(normalised(reference))
    given, wanted = parse_quantity(predicted), parse_quantity(reference)
    if given is None or wanted is None or (given.unit and wanted.unit and given.unit != wanted.unit):
        return False
    values = [given.value]
    if given.is_percentage and not wanted.is_percentage:
        values.append(given.value / 100)
    elif wanted.is_percentage and not given.is_percentage:
        values.append(given.value * 100)
    slack = relative_tolerance * abs(wanted.value) + 1e-9 * abs(wanted.value)
    return any(abs(value - wanted.value) <= slack for value in values)


def _entry_match(predicted: str, reference: str, relative_tolerance: float) -> bool:
    is_year = reference.strip().isdecimal() and len(reference.strip()) == 4 and int(reference) in _YEARS
    return relaxed_match(predicted, reference, 0.0 if is_year else relative_tolerance)


def _can_be_paired(given: list[str], wanted: list[str], relative_tolerance: float) -> bool:
    """Whether the entries match one to one (augmenting paths, so that a greedy choice cannot block a match)."""
    partner: dict[int, int] = {}

    def place(want: int, tried: set[int]) -> bool:
        for have in range(len(given)):
            if have in tried or not _entry_match(given[have], wanted[want], relative_tolerance):
                continue
            tried.add(have)
            if have not in partner or place(partner[have], tried):
                partner[have] = want
                return True
        return False

    return all(place(want, set()) for want in range(len(wanted)))


def normalised(text: str) -> str:
    """Compatible characters, one case, single spaces, no surrounding quotes or full stop; true is yes, false is no."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    text = text.strip("\"'“”‘’`").removesuffix(".").strip()
    return _TRUTHS.get(text, text)


def parse_quantity(text: str) -> Quantity | None:
    """The number that a text is, as a whole; None for anything else. Parentheses mean negative, as in accounts.

    >>> parse_quantity("$ 1.5 million").value, parse_quantity("(12.5%)"), parse_quantity("12 km").unit
    (1500000.0, Quantity(value=-12.5, is_percentage=True, unit=''), 'km')
    >>> parse_quantity("12 and 13") is None, parse_quantity("A12") is None
    (True, True)
    """
    match = _NUMBER.fullmatch(unicodedata.normalize("NFKC", text).strip().rstrip("."))
    if match is None or bool(match["open"]) != bool(match["close"]):
        return None
    digits = re.sub(r"[,\s]", "", match["digits"]) + (match["exponent"] or "")
    negative = bool(match["open"]) or (match["sign"] + match["sign2"]).strip("+") != ""
    value = float(digits) * _SCALES.get((match["scale"] or "").lower(), 1.0) * (-1.0 if negative else 1.0)
    unit = " ".join((match["unit"] or "").casefold().split())
    return Quantity(value, match["percent"] is not None, unit)
