r"""Numbers in answers, and which of them an answer gives.

The rule: a number counts when it stands free, with a unit, a currency or words around it that leave its value alone.
It does not count inside an expression (`2x`, `\sqrt{5}`, `5^2`, `100\pi`, `f(0)`, `3:5`, `3-4`, `3rd`), with a scale
word (`3k`, `3 million`), bounded or negated (`less than 3`, `not 3`, `3 or more`), as the number of a thing (`Figure
3`), or beside another number. Of an equation its last side counts, of several equations none.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from tinyr1v_ray.evaluation.benchmarks.latex import without_latex

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d+|\.(?!\w))?|\.\d+)(?:[eE][-+]?\d{1,2}(?!\w))?"
_NUMBER = re.compile(
    rf"(?:(?<![^\s(=:≈,;\[])(?P<sign>[-+]))?(?:[€£¥]\s?)?(?P<sign2>-?)(?:(?P<whole>\d+)\s+(?=\d+\s*/\s*\d))?"
    rf"(?P<top>{_DECIMAL})(?:\s*/\s*(?P<bottom>{_DECIMAL}))?"
)
_MAX_CHARACTERS = 100
"""No answer is a longer number, and Python refuses to read very long ones."""
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_UNIT = re.compile(
    r"\s*(?:[kcmdnµμ]?m|[kmµμ]?g|[mnµμ]?s|min|h|hrs?|m?[lL]|ft|in|yd|mi|lbs?|oz|mph|[kMG]?Hz|[kM]?[WVJ]|[NACF]|k?Pa|mol"
    r"|deg|rad|USD|EUR|[ap]\.?m|[a-z]{3,}(?: [a-z]{2,})?|°\s?[CF]?|%|['\"′″])"
    r"(?:\s?\^?[23])?(?:\s?/\s?[a-z]+(?:\^?2)?)?(?![\w^])"
)
"""What may follow a number and leave it alone: a known unit, or a word of three letters and more."""
_BEFORE = re.compile(r"(?:[A-Za-z0-9α-ω_.]|[\\^_+*/×÷·<>≤≥≠±√π|!{–-]\s*|\d\s*:|(?<!\S)(?!a\b)[A-Za-z]\s+|\S[(\[])$")
_AFTER = re.compile(
    r"\s*(?:[*/^_×÷·<>≤≥≠±√π!+{\\]|[%°]\w|[–-]\s*[\d(]|[–-]\w|\s[–-]\s\w\b|:\d)|\(|[A-Za-z]|\s+[A-Za-z]\b(?!\s+[a-z])"
)
"""Neighbours that make a number part of an expression."""
_BOUND_BEFORE = re.compile(
    r"(?:\b(?:than|least|most|under|over|below|above|beyond|within|exceed(?:s|ing)?|up to|between|from|before|after"
    r"|until|not|never|neither|nor|either|except|almost|nearly|half|twice|double|triple|times|plus|minus|negative"
    r"|mod(?:ulo)?|log|ln|sin|cos|tan|sqrt|root|power|exponent|or equal to"
    r"|(?:divided|multiplied|divisible|raised) (?:by|to)"
    r"|(?:multiples?|squares?|cubes?|roots?|powers?|half|thirds?|quarters?|out|one|factors?|divisors?|rest|percent) of"
    r"|fig(?:ure)?|step|eq(?:uation)?|table|row|column|section|page|problem|question|option|choice)|n't|% of)"
    r"[\s.]*(?:about|around|roughly)?\s*[(]?$",
    re.IGNORECASE,
)
_BOUND_AFTER = re.compile(
    r"\W{0,2}(?:mn|bn|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|pi|times|squared|cubed|factorial"
    r"|tenths?|halves|half|thirds?|quarters?|plus|minus|point|divided|multiplied|and a\b|to the"
    r"|or (?:more|less|fewer|above|below|so|greater|higher|lower))\b|[十百千万亿]",
    re.IGNORECASE,
)
"""Words that bound, scale or negate a number, or make it the number of a thing."""
_REFUSAL = re.compile(
    r"\b(?:cannot|can not|unable|impossible|unknown|unclear|insufficient|undetermined|indeterminate"
    r"|not (?:possible|enough|sure|given))\b|can['’]t",
    re.IGNORECASE,
)
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(?:×|·|\*|x)\s*10\s*\^\s*\{?([-+]?\d{1,2})\}?(?!\w)")
_POWER_OF_TEN = re.compile(r"(?<![\w.^])10\s*\^\s*\{?([-+]?\d{1,2})\}?(?!\w)")
_RELATION = re.compile(r"!=|<=|>=")
_FIRST_SIGN = re.compile(r"^([-+])\s+(?=[\d.])")
_SYMBOL = re.compile(r"\\[a-zA-Z]|√|π|∞")
_NEW_EQUATION = re.compile(r",(?!\d{3})|;|\b(?:or|and|so|then)\b", re.IGNORECASE)


def numbers_in(text: str) -> list[Fraction]:
    r"""Every number in a text, in order; none at all where one of them is part of an expression.

    A fraction is one number, as a mixed one is; a hyphen inside a word is no sign.

    >>> [str(number) for number in numbers_in(r"$1,234.5, 3/4 of -2, \frac{1}{2} and 7.")]
    ['2469/2', '3/4', '-2', '1/2', '7']
    >>> numbers_in("2x and 3")
    []
    """
    text = _prepared(text)
    return [value for value, _, _ in _free(text)]


def lists_in(text: str) -> set[tuple[Fraction, ...]]:
    """The lists of numbers that a text may mean: a comma without a space divides thousands, or the list.

    >>> sorted([str(number) for number in row] for row in lists_in("[2,300]"))
    [['2', '300'], ['2300']]
    """
    return {tuple(numbers_in(text)), tuple(numbers_in(text.replace(",", ", ")))} - {()}


def the_number(text: str) -> Fraction | None:
    """The number that an answer gives; None when it gives none, or several different ones, or only a bound of one.

    A number word counts when it is all there is.

    >>> str(the_number("2 + 3 = 5 apples")), the_number("between 3 and 4"), the_number("2x"), str(the_number("Seven"))
    ('5', None, None, '7')
    """
    word = text.strip().rstrip(".").casefold()
    if word in _WORDS:
        return Fraction(_WORDS.index(word))
    if _REFUSAL.search(text):
        return None
    *sides, last = map(_signed, _prepared(text).split("="))
    if any(_NEW_EQUATION.search(side) for side in sides[1:]):
        return None
    found = _free(last)
    values = {value for value, _, _ in found}
    return values.pop() if len(values) == 1 and not _is_bounded(last, found) else None


def is_bounded(text: str) -> bool:
    r"""Whether the words around a number of the text say that it is not the value itself.

    >>> is_bounded(r"3 \text{ million}"), is_bounded("more than 3"), is_bounded("3 more")
    (True, True, False)
    """
    text = _prepared(text)
    return _is_bounded(text, _free(text))


def plain_number(text: str) -> Fraction | None:
    """The number that a whole text is, thousands separators and currency allowed; None for anything else."""
    match = _NUMBER.fullmatch(_prepared(text))
    return _value(match) if match else None


def quantity(text: str) -> tuple[Fraction, str] | None:
    r"""Number and unit that a whole text is; None for anything else.

    >>> quantity(r"24 \mathrm{~cm}^{2}") == quantity("24 cm²") == (24, "cm^2"), quantity("2x")
    (True, None)
    """
    text = _prepared(text)
    match = _NUMBER.match(text)
    if match is None or (value := _value(match)) is None:
        return None
    unit = text[match.end() :]
    if (unit.strip() and not _UNIT.fullmatch(unit)) or _BOUND_AFTER.match(unit):
        return None
    return value, "".join(unit.split()).replace("degrees", "°")


@lru_cache(maxsize=64)
def _prepared(text: str) -> str:
    """Without LaTeX, one kind of minus, superscripts as powers; powers of ten as exponents."""
    if not text.isascii():
        text = re.sub(r"(?<=\d)(?=[½⅓⅔¼¾⅕-⅞])", " ", text)
    text = without_latex(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/")
    if "10" in text:
        text = _POWER_OF_TEN.sub(r"1e\1", _SCIENTIFIC.sub(r"\1e\2", text))
    return _signed(" ".join(_RELATION.sub("≠", text).split()))


def _signed(text: str) -> str:
    """A sign that begins a text is the number's, also before a space."""
    return _FIRST_SIGN.sub(r"\1", text.strip())


def _free(text: str) -> list[tuple[Fraction, int, int]]:
    """The numbers of a prepared text with where they stand; none where one of them is part of an expression."""
    if _SYMBOL.search(text):
        return []
    found, end = [], 0
    while match := _NUMBER.search(text, end):
        value, unit = _value(match), _UNIT.match(text, match.end())
        end = unit.end() if unit else match.end()
        if value is None or _is_in_expression(text, match.start(), end):
            return []
        found.append((value, match.start(), match.end()))
    return found


def _is_bounded(text: str, found: list[tuple[Fraction, int, int]]) -> bool:
    return any(_BOUND_BEFORE.search(text, 0, start) or _BOUND_AFTER.match(text, end) for _, start, end in found)


def _is_in_expression(text: str, start: int, end: int) -> bool:
    """Whether what stands before or after a number and its unit changes its value; parentheses around both do not."""
    if text[start - 1 : start] == "(" and text[end : end + 1] == ")":
        start, end = start - 1, end + 1
    return _BEFORE.search(text[:start][-12:]) is not None or _AFTER.match(text, end) is not None


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _MAX_CHARACTERS:
        return None
    top, bottom = Fraction(match["top"].replace(",", "")), Fraction((match["bottom"] or "1").replace(",", ""))
    if not bottom:
        return None
    value = top / bottom + int(match["whole"] or 0)
    return -value if "-" in (match["sign"] or "") + match["sign2"] else value
