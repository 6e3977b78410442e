r"""Expressions: parsed by math-verify, compared by value.

math-verify (0.9.0) rounds to six decimal places, takes everything below 1e-15 for zero and reads letters without their
case. Here numbers are compared by relative tolerance wherever they stand, in tuples and intervals too, and a text in
which R and r both occur keeps them apart. What has variables is left to math-verify.

It limits its own time by signals, which only work in a main thread and not inside C code. That is switched off here:
whoever scores model output runs this under the hard deadline of `isolation.ScoringProcess`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TypeVar

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, Expr, Float, Interval, MatrixBase, Rational, Set, Tuple, Union
from sympy import FiniteSet as SympyFiniteSet
from sympy.core.relational import Relational

from tinyr1v_ray.rewards.quantity import parse_number

ROUNDING = Fraction(1, 10**6)
"""How far a decimal may be off, relative to the reference and at most in all: 0.333333 is 1/3, 0.33 is not."""
_EXACT, _BINARY = Fraction(1, 10**20), Fraction(1, 10**13)
_NUM_DIGITS = 40
_NORMALISATION = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last")
_TARGET = (LatexExtractionConfig(boxed_match_priority=0, normalization_config=_NORMALISATION),)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_Paired = TypeVar("_Paired")
_CAPITAL = re.compile(r"(\\[A-Za-z]+)|([A-Z])")

logging.getLogger("math_verify").setLevel(logging.ERROR)  # else it warns that its timeout is off


def within_rounding(given: Fraction, wanted: Fraction) -> bool:
    """Whole numbers are equal exactly, all others to six digits: relative below 1, absolute above."""
    both_whole = given.denominator == wanted.denominator == 1
    tolerance = Fraction(0) if both_whole else min(Fraction(1), abs(wanted)) * ROUNDING
    return abs(given - wanted) <= tolerance


def same_expression(given: str, wanted: str, factors: Sequence[Fraction] = (Fraction(1),)) -> bool:
    """Whether two texts in plain notation are the same expression, the first one times one of the factors."""
    if any(_has_both_cases(text) for text in (given, wanted)):
        given, wanted = (_CAPITAL.sub(_marked, text) for text in (given, wanted))
    left, right = _parsed(given), _parsed(wanted)
    if left is None or right is None:
        return False
    if any(factor != 1 for factor in factors) and isinstance(left, Basic) and not isinstance(left, Relational | Set):
        return any(_same(left * Rational(factor.numerator, factor.denominator), right) for factor in factors)
    return _same(left, right)


def is_rounded(decimal: str, exact: str) -> bool:
    """Whether a decimal is the value of an expression, right to its last place but one unit."""
    expression, places = _parsed(exact), len(decimal.partition(".")[2])
    value = None if expression is None else _value(expression)
    number = parse_number(decimal)
    return value is not None and number is not None and abs(value - number) <= Fraction(1, 10**places)


def _has_both_cases(text: str) -> bool:
    letters = set(_COMMAND.sub(" ", text))
    return any(letter.isupper() and letter.lower() in letters for letter in letters if letter.isascii())


def _marked(found: re.Match[str]) -> str:
    return found[1] or rf"{found[2].lower()}_{{999}}"


@lru_cache(maxsize=512)
def _parsed(text: str) -> Basic | MatrixBase | None:
    """The expression that the whole of a text is; None for what is none."""
    found = parse(
        rf"\boxed{{{text}}}",
        extraction_config=_TARGET,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return found[0] if found else None


def _same(given: Basic | MatrixBase, wanted: Basic | MatrixBase) -> bool:
    """By structure as long as there is any, then by value, then symbolically."""
    if isinstance(wanted, Eq):
        same_name = isinstance(given, Eq) and given.lhs == wanted.lhs
        return _same(given.rhs, wanted.rhs) if same_name else isinstance(given, Eq) and _verified(given, wanted)
    if isinstance(given, MatrixBase) and isinstance(wanted, MatrixBase):
        return given.shape == wanted.shape and all(map(_same, given.flat(), wanted.flat()))
    if isinstance(given, Set | Tuple) and isinstance(wanted, Set | Tuple):
        return _same_collection(_solutions(given), _solutions(wanted))
    value = _same_value(given, wanted)
    if value is not None:
        return value
    return not _differ_somewhere(given, wanted) and _verified(given, wanted)


def _same_collection(given: Set | Tuple, wanted: Set | Tuple) -> bool:
    """Member by member; sets in any order."""
    if isinstance(given, Interval) and isinstance(wanted, Interval):
        same_ends = (given.left_open, given.right_open) == (wanted.left_open, wanted.right_open)
        return same_ends and _same(given.start, wanted.start) and _same(given.end, wanted.end)
    if isinstance(given, Tuple) and isinstance(wanted, Tuple):
        return len(given) == len(wanted) and all(map(_same, given.args, wanted.args))
    for kind in (SympyFiniteSet, Union):
        if isinstance(given, kind) and isinstance(wanted, kind):
            return can_be_paired(given.args, wanted.args, _same)
    return _verified(given, wanted)


def _verified(given: Basic | MatrixBase, wanted: Basic | MatrixBase) -> bool:
    return bool(verify(wanted, given, allow_set_relation_comp=True, timeout_seconds=None))


def _solutions(members: Set | Tuple) -> Set | Tuple:
    """What satisfies one of the inequalities in one variable that a set consists of; any other set as it is."""
    relations = members.args if isinstance(members, SympyFiniteSet) else ()
    inequalities = [
        relation for relation in relations if isinstance(relation, Relational) and not isinstance(relation, Eq)
    ]
    if not relations or len(inequalities) < len(relations) or len(members.free_symbols) != 1:
        return members
    return Union(*(relation.as_set() for relation in inequalities))


def _same_value(given: Basic | MatrixBase, wanted: Basic | MatrixBase) -> bool | None:
    """Verdict on two finite real numbers; None when one of them is none."""
    left, right = _value(given), _value(wanted)
    if left is None or right is None:
        return None
    has_decimals = given.has(Float) or wanted.has(Float)
    return abs(left - right) <= abs(right) * (_BINARY if has_decimals else _EXACT) or (
        has_decimals and within_rounding(left, right)
    )


def _differ_somewhere(given: Basic | MatrixBase, wanted: Basic | MatrixBase) -> bool:
    """Whether two expressions with variables have unequal values at a point; cheaper and stricter than to simplify."""
    if not isinstance(given, Expr) or not isinstance(wanted, Expr):
        return False
    variables = sorted(given.free_symbols | wanted.free_symbols, key=str)
    point = {variable: Rational(7 + 4 * index, 5 + index) for index, variable in enumerate(variables)}
    return _same_value(given.subs(point), wanted.subs(point)) is False


def _value(expression: Basic | MatrixBase) -> Fraction | None:
    if not isinstance(expression, Expr) or expression.free_symbols:
        return None
    try:
        value = expression if isinstance(expression, Rational) else expression.doit().evalf(_NUM_DIGITS)
    except (NotImplementedError, ArithmeticError, TypeError, ValueError, AttributeError):
        return None  # sums and integrals that have no value that sympy finds
    if not value.is_Number or not value.is_finite:
        return None
    return Fraction(Rational(value).p, Rational(value).q)


def can_be_paired(
    given: Sequence[_Paired], wanted: Sequence[_Paired], fits: Callable[[_Paired, _Paired], bool]
) -> bool:
    """Whether the entries match one to one.

    Identical entries are paired first, which is most of them and cheap; augmenting paths then find partners for the
    others, so that a greedy choice cannot block a match.
    """
    if len(given) != len(wanted):
        return False
    places: dict[_Paired, list[int]] = {}
    for have, entry in enumerate(given):
        places.setdefault(entry, []).append(have)
    partner: dict[int, int] = {}
    unplaced = []
    for want, entry in enumerate(wanted):
        if places.get(entry):
            partner[places[entry].pop()] = want
        else:
            unplaced.append(want)

    def place(want: int, tried: set[int]) -> bool:
        for have in range(len(given)):
            if have in tried or not fits(given[have], wanted[want]):
                continue
            tried.add(have)
            if have not in partner or place(partner[have], tried):
                partner[have] = want
                return True
        return False

    return all(place(want, set()) for want in unplaced)
