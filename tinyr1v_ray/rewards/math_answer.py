r"""Mathematical answers: equal as text, as exact numbers, or as expressions (math-verify).

math-verify limits its own time by signals, which only work in a main thread and not inside C code. It is switched off
here: whoever scores model output runs this under the hard deadline of `isolation.ScoringProcess`.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from fractions import Fraction

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

_DECIMAL = r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?"
_NUMBER = re.compile(rf"(?P<numerator>{_DECIMAL})(?:\s*/\s*(?P<denominator>{_DECIMAL}))?", re.IGNORECASE)
_MIXED = re.compile(r"(?P<sign>-?)(?P<whole>\d+)\s+(?P<numerator>\d+)\s*/\s*(?P<denominator>\d+)")
_CHOICE = re.compile(r"\(?([A-Za-z])(?:[).:].*|)", re.DOTALL)
_WORDS = re.compile(r"[^\W\d_]{3,}|[^\W\d_]+(?:[\s'’-]+[^\W\d_]+)+")
_ROOT_OF_NUMBER = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[A-Za-z]))")
_ROUNDING = Fraction(1, 10**6)
_MAX_CHARACTERS = 300
_TARGETS = [LatexExtractionConfig(), ExprExtractionConfig()]

logging.getLogger("math_verify").setLevel(logging.ERROR)  # else it warns that its timeout is off


def math_equal(predicted: str, reference: str) -> bool:
    r"""Whether two answers mean the same.

    - A reference that is one letter is a choice: `B`, `(b)` and `B: 42` are the same, `B` and `BC` are not.
    - A reference in words is compared as text, without case: as expressions, `tea` would equal `eat`.
    - Plain numbers are equal when their values are (1,234 = 1234.0; 0.5 = 1/2; 1 1/2 = 3/2; 1e3 = 1000); unless both
      are whole, they may differ by 1e-6 (relative below 1), so that 0.333333 = 1/3.
    - All else is compared by math-verify: algebra, sets, intervals, units, percentages.

    An empty prediction equals nothing, and neither does one of more than 300 characters that is not the same text:
    no answer is that long, and parsers take minutes over nested brackets.

    >>> math_equal("0.5", r"\frac{1}{2}"), math_equal("(B) 12", "B"), math_equal("tea", "eat"), math_equal("7", "8")
    (True, True, False, False)
    """
    predicted, reference = _clean(predicted), _clean(reference)
    if not predicted or not reference:
        return False
    if predicted.casefold() == reference.casefold():
        return True
    if len(predicted) > _MAX_CHARACTERS:
        return False
    if len(reference) == 1 and reference.isalpha():
        choice = _CHOICE.fullmatch(predicted)
        return choice is not None and choice[1].casefold() == reference.casefold()
    if _WORDS.fullmatch(reference):
        return False
    given, wanted = _as_number(predicted), _as_number(reference)
    if given is not None and wanted is not None:
        both_whole = given.denominator == wanted.denominator == 1
        tolerance = Fraction(0) if both_whole else min(Fraction(1), abs(wanted)) * _ROUNDING
        return abs(given - wanted) <= tolerance
    return bool(verify(_parse(reference), _parse(predicted), timeout_seconds=None))


def _clean(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFC", text).replace("−", "-").split())
    return text.strip().strip("$").strip()


def _as_number(text: str) -> Fraction | None:
    """Exact value of a plain number, fraction or mixed number; None for anything else."""
    if mixed := _MIXED.fullmatch(text):
        if int(mixed["denominator"]) == 0:
            return None
        value = int(mixed["whole"]) + Fraction(int(mixed["numerator"]), int(mixed["denominator"]))
        return -value if mixed["sign"] else value
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    numerator, denominator = (Fraction((match[part] or "1").replace(",", "")) for part in ("numerator", "denominator"))
    return numerator / denominator if denominator else None


def _parse(text: str) -> list[object]:
    """Expressions that a text may stand for; as the content of a box it is read whole, not searched for numbers."""
    text = _ROOT_OF_NUMBER.sub(lambda root: rf"\sqrt{{{root[1] or root[2]}}}", text).replace("**", "^")
    text = re.sub(r"(?<!\\)%", r"\\%", text)
    return parse(rf"\boxed{{{text}}}", extraction_config=_TARGETS, parsing_timeout=None)
