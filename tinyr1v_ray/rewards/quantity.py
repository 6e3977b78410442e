r"""Quantities: a number or an expression, with a percent sign, a scale word and a unit.

The forms of a number, all exact: `42`, `1,234.5`, `1 000`, `.5`, `0.\overline{3}`, `3/4`, `\frac{3}{4}`, `1.2e3`,
`1.2 \times 10^{3}`, `10^{3}`, and the mixed number `2 3/4`, whose fraction is proper: `5 9/7` is no number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

from tinyr1v_ray.rewards.units import CURRENCY_SIGNS, GLUED_LETTERS, Unit, parse_unit

DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?: \d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_POWER = r"10\s*\^\s*[{(]?\s*(?P<ten>[-+]?\d{1,4})\s*[})]?"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<digits>{DECIMAL})(?:[eE](?P<e>[-+]?\d{{1,3}})|\s*(?:\\times|\\cdot|\*)\s*{_POWER})?"
    rf"|{_POWER.replace('?P<ten>', '?P<alone>')})"
)
_FRACTION = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<n>[-+]?\s*{DECIMAL})\s*/\s*(?P<d>{DECIMAL})"
    rf"|\\frac\s*(?:\{{\s*(?P<n1>[-+]?\s*{DECIMAL})\s*\}}|(?P<n2>\d))\s*(?:\{{\s*(?P<d1>{DECIMAL})\s*\}}|(?P<d2>\d)))"
)
_MIXED = re.compile(
    r"(?P<sign>[-+]?)\s*(?P<whole>\d+)(?:\s+(?P<n>\d+)\s*/\s*(?P<d>\d+)"
    r"|\s*\\frac\s*(?:\{\s*(?P<n1>\d+)\s*\}|(?P<n2>\d))\s*(?:\{\s*(?P<d1>\d+)\s*\}|(?P<d2>\d)))"
)
_SCALES = {
    "dozen": 12,
    "hundred": 10**2,
    **dict.fromkeys(("thousand", "千"), 10**3),
    "万": 10**4,
    **dict.fromkeys(("million", "mn", "百万"), 10**6),
    "亿": 10**8,
    **dict.fromkeys(("billion", "bn"), 10**9),
    "trillion": 10**12,
}
_ABOUT = re.compile(
    r"^(?:\\approx|\\sim(?![A-Za-z])|~|(?:about|approximately|approx\.?|roughly|around)(?=\s)|约等于|大约|约)\s*"
    r"|\s*\(?\b(?:approx\.?|approximately)\)?$",
    re.IGNORECASE,
)
_CURRENCY = re.compile(
    rf"^(?P<sign>[-+]?)\s*(?P<unit>{'|'.join(map(re.escape, CURRENCY_SIGNS))}|USD|EUR|Rs\.?)\s*(?=[-\d.(])"
)
_PERCENT = re.compile(r"\s*(?:%|(?<![A-Za-z])(?:percent(?:age)?|per cent|pct)(?:\s+points?)?\.?)$", re.I)
_SCALED = re.compile(rf"([-+]?\s*{DECIMAL})\s*({'|'.join(_SCALES)})(?![A-Za-z克米瓦])\s*", re.I)
_REPEATING = re.compile(r"(?P<sign>[-+]?)(?P<whole>\d*)\.(?P<digits>\d*)\\(?:overline|bar|dot)\s*\{(?P<period>\d+)\}")
_PART = re.compile(rf"({DECIMAL})\s*([^\W\d_]+\.?|°|')\s*(?:,\s*)?(?:and\s+)?")
_UNIT_START = re.compile(r"(?<![\\A-Za-z^_{])(?=[^\W\d_]|[°$¢€£¥₹])")
_ENDS_IN_NUMBER = re.compile(r"(?:[\d})!]|\\pi)$")
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)$")
_MAX_UNIT_CHARACTERS = 60


@dataclass(frozen=True)
class Quantity:
    """What a text says as a quantity: the text of its value, and what stands around it."""

    value: str
    is_percentage: bool = False
    scale: int = 1
    unit: Unit | None = None

    @cached_property
    def number(self) -> Fraction | None:
        """The exact value with the scale word applied, not the percent sign; None for what is not a plain number."""
        number = parse_number(self.value)
        return None if number is None else number * self.scale

    def is_comparable_with(self, other: Quantity) -> bool:
        """Two units measure the same; a unit is no percentage; what has no unit is comparable with everything."""
        if self.unit and other.unit:
            return self.unit.is_comparable_with(other.unit)
        return not (self.unit and other.is_percentage) and not (other.unit and self.is_percentage)


def parse_number(text: str) -> Fraction | None:
    r"""Exact value of a number in one of the forms above; None for anything else.

    >>> parse_number("+5 2/7"), parse_number("1.5e3"), parse_number(r"\frac12"), parse_number("--3")
    (Fraction(37, 7), Fraction(1500, 1), Fraction(1, 2), None)
    """
    if match := _NUMBER.fullmatch(text):
        exponent = int(match["e"] or match["ten"] or match["alone"] or 0)
        value = Fraction(_bare(match["digits"] or "1")) * Fraction(10) ** exponent
    elif match := _MIXED.fullmatch(text):
        numerator, denominator = int(match["n"] or match["n1"] or match["n2"]), _denominator(match)
        if not numerator < denominator:
            return None
        value = int(match["whole"]) + Fraction(numerator) / denominator
    elif match := _FRACTION.fullmatch(text):
        denominator = _denominator(match)
        if not denominator:
            return None
        value = Fraction(_bare(match["n"] or match["n1"] or match["n2"])) / denominator
    elif match := _REPEATING.fullmatch(text):
        digits, period = match["digits"], match["period"]
        value = Fraction(int(match["whole"] or 0)) + Fraction(int(digits or 0), 10 ** len(digits))
        value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(digits))
    else:
        return None
    return -value if match["sign"] == "-" else value


@lru_cache(maxsize=4096)
def parse_quantity(text: str) -> Quantity:
    r"""The parts of a text in plain notation; all of it is the value when nothing stands around it.

    >>> parse_quantity("60 km/h").value, parse_quantity("28%").is_percentage, parse_quantity("1.2 million").number
    ('60', True, Fraction(1200000, 1))
    >>> parse_quantity(r"2\sqrt{3} cm^2").value, parse_quantity("3k").value, parse_quantity("2 x").value
    ('2\\sqrt{3}', '3k', '2 x')
    """
    text, unit, scale = _ABOUT.sub("", text.strip()), None, 1
    if currency := _CURRENCY.match(text):
        unit = parse_unit(currency["unit"])
        text = currency["sign"] + text[currency.end() :]
    percent = _PERCENT.search(text)
    if percent and percent.start():
        return Quantity(text[: percent.start()].strip(), True, scale, unit)
    if scaled := _SCALED.match(text):
        scale = _SCALES[scaled[2].lower()]
        text = f"{scaled[1]} {text[scaled.end() :]}".strip()
    if unit is None:
        text, unit = _sum_of_units(text) or _split_unit(text)
    return Quantity(_ORDINAL.sub("", text), False, scale, unit)


def _split_unit(text: str) -> tuple[str, Unit | None]:
    """Value and unit; the longest tail that is a unit counts, if what is left can be a value.

    A noun needs a plain number before it. A single letter is a unit only after a number, not after a variable.
    """
    for start in _UNIT_START.finditer(text):
        value, name = text[: start.start()].rstrip(), text[start.start() :]
        if not value or len(name) > _MAX_UNIT_CHARACTERS or not (unit := parse_unit(name)):
            continue
        is_glued = value == text[: start.start()] and name.isascii()
        if not unit.is_known:
            fits = parse_number(value) is not None and not is_glued
        elif name.isalpha() and len(name) == 1:
            fits = bool(_ENDS_IN_NUMBER.search(value))
            fits = fits and (not is_glued or (name in GLUED_LETTERS and parse_number(value) is not None))
        else:
            fits = value[-1].isalnum() or value[-1] in "})!"
        if fits:
            return value, unit
    return text, None


def _sum_of_units(text: str) -> tuple[str, Unit] | None:
    """The sum of quantities of one kind, in the last one's unit: 90 min of `1 hour 30 minutes`; None for others."""
    parts, end = [], 0
    while match := _PART.match(text, end):
        parts.append((Fraction(_bare(match[1])), parse_unit(match[2])))
        end = match.end()
    last = parts[-1][1] if len(parts) > 1 and end == len(text) else None
    if last is None or not last.is_known:
        return None
    if any(unit is None or not unit.is_known or unit.measures != last.measures for _, unit in parts):
        return None
    return str(sum(number * unit.factor for number, unit in parts if unit) / last.factor), last


def _denominator(match: re.Match[str]) -> Fraction:
    return Fraction(_bare(match["d"] or match["d1"] or match["d2"]))


def _bare(digits: str) -> str:
    return re.sub(r"[,\s]", "", digits)
