r"""Answers that mean nothing but themselves: words, names, formulas, dates, times, ranges.

They are equal as text, and must not be evaluated: as expressions, letters are factors and hyphens are minus signs.
"""

from __future__ import annotations

import re

from tinyr1v_ray.rewards.quantity import Quantity, parse_number, parse_quantity

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORDS = re.compile(r"[^\W\d_]{3,}|[^\W\d_]+(?:[\s'’-]+[^\W\d_]{2,})+|[^\W\d_]{2,}(?:[\s'’-]+[^\W\d_]+)+")
_NAME = re.compile(r"(?:(?=[^_]*[A-Za-z][^_]*\w)[A-Za-z](?:[\w' ]|-(?=[A-Za-z]{2})|_\{\w+\}|\^\{\d?[+-]\})*)")
_TIME = re.compile(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?(?:\s*[ap]\.?\s*m\.?)?|\d{1,2}\s*[ap]\.?m\.?", re.I)
_DATE_OR_RANGE = re.compile(
    r"\d+([-/.])\d+\1\d+|\d{4}-(?:0\d|\d{4})|\d{3}-\d{4}"
    r"|\d+(?:\.\d+)?(?:\s*[–~]\s*|\s+to\s+)\d+(?:\.\d+)?|[^$€£¥]*\d[^$€£¥]*[$€£¥].*"
)
_DIFFERENCE = re.compile(r"\d+(?:\.\d+)?\s*[-–~]\s*\d+(?:\.\d+)?")
_SIDE_BY_SIDE = re.compile(r"(?<![\d\\A-Za-z{_^])\d(?:[\d.,]*\d)?\s+[\d.]|[-+]\s*[-+]\s*\d|\d\s*\(\d+\)\s*\d")
_PROSE = re.compile(rf"(?<![\\A-Za-z])[A-Za-z][a-z]{{3,}}(?![A-Za-z({{_])|(?<!\S)[A-Za-z][a-z]{{2}}(?!\S)|[{_CJK}]")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z]+\}(?:\{[a-z|]+\})?")
_OPERATOR = re.compile(r"[\\^_=+*/<>]|(?<![A-Za-z]{2})-|-(?![A-Za-z]{2})")


def same_text(given: str, wanted: str) -> bool:
    """Equal text. The case of words does not count; that of expressions (R and r) and of units (mW and MW) does."""
    left, right = spelling(given), spelling(wanted)
    if left == right or left.casefold() != right.casefold() or _OPERATOR.search(left):
        return left == right
    return parse_quantity(left).unit == parse_quantity(right).unit


def spelling(text: str) -> str:
    """A text without what is only layout: spaces around signs and lone letters, braces around an index."""
    text = re.sub(r"_\s*\{?(\w+)\}?\s*", r"\1", text) if _NAME.fullmatch(text) else text
    text = re.sub(r"\s*[–~]\s*(?=\d)|(?<=\d)\s*(?:-|\bto\b)\s*(?=\d)", "-", text)
    text = re.sub(r"\s*([,;:=+(){}\[\]])\s*|(?<=\b[A-Za-z]) (?=[A-Za-z]\b)", r"\1", text)
    return re.sub(r"(?<!\d)0+(?=\d:)", "", text).strip(" .\"'")


def is_text(text: str, quantity: Quantity) -> bool:
    """Whether a text means nothing but itself, so that it must not be evaluated."""
    value = _ENVIRONMENT.sub("", quantity.value)
    if parse_number(value) is not None:
        return False
    ranged = _DATE_OR_RANGE.fullmatch(value) or (quantity.unit is not None and _DIFFERENCE.fullmatch(value))
    named = len(value) > 1 and (_WORDS.fullmatch(value) or _NAME.fullmatch(value))
    return bool(ranged or named or _TIME.fullmatch(text) or _SIDE_BY_SIDE.search(value) or _PROSE.search(value))
