"""Numeric and symbolic equivalence, and answers that look alike but are not."""

from __future__ import annotations

import pytest

from tinyr1v_ray.rewards.math_answer import math_equal


@pytest.mark.parametrize(
    ("predicted", "reference"),
    [
        ("42", "42"),
        ("042", "42"),
        ("42.0", "42"),
        ("+5", "5"),
        ("−5", "-5"),
        ("1,234", "1234"),
        ("1e3", "1000"),
        (".5", r"\frac{1}{2}"),
        ("1/2", r"\frac12"),
        ("2/4", "1/2"),
        ("1 1/2", "3/2"),
        (r"1\frac{1}{2}", "1.5"),
        ("0.333333", "1/3"),
        ("$5$", "5"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        ("2√2", r"\sqrt{8}"),
        ("√(9)", "3"),
        (r"2 \times 10^3", "2000"),
        ("10^3", "1000"),
        ("x^2+2x+1", "(x+1)^2"),
        ("(x+1)^2", "x**2+2*x+1"),
        ("(1,2)", "(1, 2)"),
        ("{1,2}", r"\{2, 1\}"),
        ("x = 3", "3"),
        ("12 cm", "12"),
        (r"12\text{ cm}", "12"),
        (r"30^\circ", "30"),
        ("50%", "0.5"),
        ("B", "b"),
        ("(B)", "B"),
        ("B. 42", "B"),
        ("Right  Triangle", "right triangle"),
        ("12:30", "12:30"),
    ],
)
def test_equivalent(predicted: str, reference: str) -> None:
    assert math_equal(predicted, reference)


@pytest.mark.parametrize(
    ("predicted", "reference"),
    [
        ("", "5"),
        ("43", "42"),
        ("-5", "5"),
        ("1234567", "1234568"),
        ("0.33", "1/3"),
        ("3.14", r"\pi"),
        ("12 or 13", "12"),
        ("5 5 5", "5"),
        ("1, 2, 3", "2"),
        ("not 12", "12"),
        ("1/0", "0"),
        ("(2,1)", "(1,2)"),
        ("tea", "eat"),
        ("Bob", "B"),
        ("A cat", "A"),
        ("AB", "A"),
        ("x", "y"),
        ("}{", "5"),
        (r"\frac{1}{", "1"),
        ("9" * 5000, "9"),
        ("(" * 400 + "1" + ")" * 400, "1"),
    ],
)
def test_different(predicted: str, reference: str) -> None:
    assert not math_equal(predicted, reference)
