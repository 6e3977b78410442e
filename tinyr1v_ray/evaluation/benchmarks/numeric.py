"""Numbers in answers: with thousands separators, currency, units, percent signs, as fractions and in LaTeX."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,2}(?!\w))?"
_NUMBER = re.compile(
    rf"(?<![\w.,])(?P<sign>[-+]?)\s?[$€£¥]?\s?(?P<sign2>-?)(?P<top>{_DECIMAL})(?:\s*/\s*(?P<bottom>{_DECIMAL}))?"
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?[\d.]+)\s*\}\s*\{\s*(-?[\d.]+)\s*\}")
_LATEX_SPACING = re.compile(r"\\[,;! ]|\\(?:text|mathrm|quad)\b|[{}]|\\\$")
_MAX_CHARACTERS = 100
"""No answer is a longer number, and Python refuses to read very long ones."""
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def numbers_in(text: str) -> list[Fraction]:
    r"""Every number in a text, in order; a fraction is one number, a hyphen inside a word is no sign.

    >>> [str(number) for number in numbers_in(r"$1,234.5, 3/4 of -2, \frac{1}{2} and 7.")]
    ['2469/2', '3/4', '-2', '1/2', '7']
    """
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/")
    text = _LATEX_SPACING.sub(" ", _LATEX_FRACTION.sub(r" \1/\2 ", text))
    return [value for match in _NUMBER.finditer(text) if (value := _value(match)) is not None]


def the_number(text: str) -> Fraction | None:
    """The number that an answer gives; None when it gives none, or several different ones.

    Of an equation it is what follows the last equals sign. A number word counts when it is all there is.

    >>> str(the_number("2 + 3 = 5 apples")), the_number("between 3 and 4"), str(the_number("Seven"))
    ('5', None, '7')
    """
    word = text.strip().rstrip(".").casefold()
    if word in _WORDS:
        return Fraction(_WORDS.index(word))
    found = set(numbers_in(text.rpartition("=")[2]))
    return found.pop() if len(found) == 1 else None


def plain_number(text: str) -> Fraction | None:
    """The number that a whole text is, thousands separators allowed; None for anything else."""
    match = _NUMBER.fullmatch(text.strip().replace("−", "-"))
    return _value(match) if match else None


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _MAX_CHARACTERS:
        return None
    top, bottom = Fraction(match["top"].replace(",", "")), Fraction((match["bottom"] or "1").replace(",", ""))
    if not bottom:
        return None
    return -top / bottom if "-" in match["sign"] + match["sign2"] else top / bottom
