r"""Units after a number: which spellings mean the same unit, and which units can be compared.

The rule: a unit may be missing on one side. Two units must measure the same thing, and then the quantities are compared
(2 m = 200 cm, 2 m is not 2 cm); what is not in the table, such as `apples`, is a noun and must be the same noun.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_TABLE = """
m meter metre 米 公尺 = 1 m
km kilometer kilometre 千米 公里 = 1000 m
dm decimeter decimetre 分米 = 1/10 m
cm centimeter centimetre 厘米 公分 = 1/100 m
mm millimeter millimetre 毫米 = 1/1000 m
μm um micrometer micrometre micron 微米 = 1/1000000 m
nm nanometer nanometre 纳米 = 1/1000000000 m
in inch inches 英寸 = 127/5000 m
ft foot feet 英尺 = 381/1250 m
yd yard = 1143/1250 m
mi mile 英里 = 201168/125 m
ha hectare 公顷 = 10000 m^2
acre = 316160658/78125 m^2
L l liter litre 升 = 1/1000 m^3
mL ml milliliter millilitre cc 毫升 = 1/1000000 m^3
kg kilogram 千克 公斤 = 1 kg
g gram 克 = 1/1000 kg
mg milligram 毫克 = 1/1000000 kg
t ton tonne 吨 = 1000 kg
lb lbs pound 磅 = 1 pound
oz ounce = 1/16 pound
s sec second 秒 = 1 s
ms millisecond 毫秒 = 1/1000 s
min minute 分钟 = 60 s
h hr hrs hour 小时 = 3600 s
day 天 日 = 86400 s
week 周 = 604800 s
month 个月 = 1 month
year yr yrs 年 = 12 month
° deg degree 度 = 1 degree
' arcminute 角分 = 1/60 degree
rad radian 弧度 = 1 radian
°C 摄氏度 = 1 celsius
°F 华氏度 = 1 fahrenheit
K kelvin = 1 kelvin
A amp ampere 安 = 1 A
mA milliampere = 1/1000 A
C coulomb 库仑 = 1 A s
mol mole 摩尔 = 1 mol
N newton 牛 牛顿 = 1 kg m s^-2
kN = 1000 kg m s^-2
J joule 焦 焦耳 = 1 kg m^2 s^-2
kJ = 1000 kg m^2 s^-2
W watt 瓦 = 1 kg m^2 s^-3
kW kilowatt 千瓦 = 1000 kg m^2 s^-3
MW megawatt = 1000000 kg m^2 s^-3
mW milliwatt = 1/1000 kg m^2 s^-3
Pa pascal 帕 = 1 kg m^-1 s^-2
kPa = 1000 kg m^-1 s^-2
V volt 伏 = 1 kg m^2 s^-3 A^-1
kV = 1000 kg m^2 s^-3 A^-1
mV = 1/1000 kg m^2 s^-3 A^-1
Ω ohm 欧 欧姆 = 1 kg m^2 s^-3 A^-2
Hz hertz 赫兹 = 1 s^-1
mph = 201168/450000 m s^-1
kmh kph kmph = 5/18 m s^-1
dollar USD US$ $ 美元 = 1 dollar
cent ¢ 美分 = 1/100 dollar
euro EUR € 欧元 = 1 euro
£ GBP = 1 sterling
yuan RMB CNY ¥ 元 = 1 yuan
yen JPY 日元 = 1 yen
rupee Rs ₹ = 1 rupee
unit 单位 = 1 unit
"""
CURRENCY_SIGNS = ("US$", "$", "€", "£", "¥", "₹")
GLUED_LETTERS = frozenset("msgLlNJWV")
"""Units of one letter that may follow a number without a space. Others would be variables: `3k`, `2t`, `5x`."""
_NOT_A_UNIT = re.compile(
    r"\b(?:and|or|nor|not|no|is|are|was|to|than|more|less|fewer|plus|minus|times|over|out|from|if|but|only|versus|vs|at"
    r"|of|least|most|under|above|below|about|approximately|through|until|wrong|false|true)\b",
    re.IGNORECASE,
)
_SHAPES = (
    (re.compile(r"\b(?:square|sq\.?)\s+([A-Za-z]+)"), r"\1^2"),
    (re.compile(r"\b(?:cubic|cu\.?)\s+([A-Za-z]+)"), r"\1^3"),
    (re.compile(r"\b([A-Za-z]+)\s+squared\b"), r"\1^2"),
    (re.compile(r"\b([A-Za-z]+)\s+cubed\b"), r"\1^3"),
    (re.compile(r"平方(千米|公里|厘米|分米|毫米|米)"), r"\1^2"),
    (re.compile(r"立方(千米|厘米|分米|毫米|米)"), r"\1^3"),
    (re.compile(r"\s*(?:\bper\b|每|/)\s*"), "/"),
    (re.compile(r"°\s*([CF])\b|\b[Dd]egrees?\s+([CF])(?:elsius|ahrenheit)?\b|℃"), r"°\1\2"),
    (re.compile(r"\s*(?:\\cdot|\*)\s*"), " "),
)
_FACTOR = re.compile(r"(?P<name>[^\W\d_]+|°[CF]?|[$¢€£¥₹'])\.?(?:\^?\{?(?P<power>-?\d)\}?)?")


@dataclass(frozen=True)
class Unit:
    """What a unit measures, as base units or nouns with their powers, and how many of them it is."""

    measures: frozenset[tuple[str, int]]
    factor: Fraction = Fraction(1)
    is_known: bool = True

    def is_comparable_with(self, other: Unit) -> bool:
        """Same kind of measure; of nouns, the same one or one that says more: apples and red apples, 个 and 个苹果."""
        if self.is_known or other.is_known:
            return self == other or (self.is_known and other.is_known and self.measures == other.measures)
        mine, theirs = sorted((unit.measures for unit in (self, other)), key=len)
        return mine <= theirs or any(a in b or b in a for a, _ in mine for b, _ in theirs if not (a + b).isascii())


def parse_unit(text: str) -> Unit | None:
    """The unit that a text is, as a whole: a product or quotient of units of the table, or a few words; else None.

    >>> parse_unit("km/h") == parse_unit("kilometers per hour"), parse_unit("cm^2") == parse_unit("sq. cm")
    (True, True)
    >>> parse_unit("apples").is_known, parse_unit("or more") is None, parse_unit("x") is None
    (False, True, True)
    """
    for pattern, replacement in _SHAPES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    known = _known(text)
    if known is not None:
        return known
    words = re.findall(r"[^\W\d_]+", text)
    is_noun = re.fullmatch(r"[^\W\d_]+(?:[\s-]+[^\W\d_]+){0,4}\.?", text) and (len(words[-1]) > 2 or not text.isascii())
    if not words or not is_noun or _NOT_A_UNIT.search(text):
        return None
    return Unit(frozenset((_singular(word.casefold()), 1) for word in words), is_known=False)


def _known(text: str) -> Unit | None:
    """A product or quotient of units of the table; after a bar, the next factor is divided by."""
    measures: dict[str, int] = {}
    factor, position, sign = Fraction(1), 0, 1
    text = re.sub(r"^\((.*)\)$", r"\1", text)
    while position < len(text):
        match = _FACTOR.match(text, position)
        definition = _lookup(match["name"]) if match else None
        if match is None or definition is None:
            return None
        power = sign * int(match["power"] or 1)
        factor *= definition.factor**power
        for name, times in definition.measures:
            measures[name] = measures.get(name, 0) + times * power
        separator = re.compile(r"\s*(/?)\s*").match(text, match.end())
        assert separator is not None
        position, sign = separator.end(), -1 if separator[1] else 1
        if separator[1] and position == len(text):
            return None
    return Unit(frozenset(item for item in measures.items() if item[1]), factor) if text else None


def _lookup(name: str) -> Unit | None:
    """A unit of the table by its sign, or by its name in any case and number."""
    return _SIGNS.get(name) or (_NAMES.get(_singular(name.casefold())) if len(name) > 1 else None)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _read_table() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for line in _TABLE.strip().splitlines():
        names, _, definition = line.partition(" = ")
        factor, *bases = definition.split()
        powers = (base.partition("^") for base in bases)
        unit = Unit(frozenset((name, int(power or 1)) for name, _, power in powers), Fraction(factor))
        units.update(dict.fromkeys(names.split(), unit))
    return units


_SIGNS = _read_table()
_NAMES = {_singular(name.casefold()): unit for name, unit in reversed(_SIGNS.items()) if len(name) > 1}
