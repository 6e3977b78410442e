"""Relaxed match: numbers with trimmings, years, lists; and the OCR similarity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyr1v_ray.rewards.extract import read_answer
from tinyr1v_ray.rewards.ocr import text_similarity
from tinyr1v_ray.rewards.structured import normalised, parse_amount, relaxed_match, structured_match


@pytest.mark.parametrize(
    ("predicted", "reference"),
    [
        ("10.5", "10"),
        ("9.5", "10"),
        ("-9.5", "-10"),
        ("$1,234.50", "1234.5"),
        ("1 234", "1234"),
        ("45%", "45"),
        ("45", "45 %"),
        ("0.45", "45%"),
        ("45 percent", "0.45"),
        ("1.2 million", "1200000"),
        ("3k", "3000"),
        ("(120)", "-120"),
        ("12 km", "12"),
        ("12", "12 KM"),
        ("12 km", "12.3 km"),
        ("$ 5", "5 dollars"),
        ("1.5e3", "1500"),
        ("2012", "2012.0"),
        ("True", "yes"),
        ("  New   York. ", "new york"),
        ("“Total”", "total"),
        ("Peru, Chile", "Chile, Peru"),
        ("Chile; Peru", "Chile|Peru"),
        ("10, 20", "20.5, 10.2"),
        ("0", "0.0"),
        ("$3.4M", "3.4 million"),
        ("2bn", "2,000,000,000"),
        ("€7m", "7 million"),
        ("7 kilometers", "7 km"),
        ("3 km", "3000 m"),
        ("Rome and Oslo", "[Oslo, Rome]"),
        ('["Rome", "Oslo"]', "Oslo,Rome"),
        ("Rome", "['Rome']"),
        (r"\text{Rome}", "Rome"),
        (r"7\%", "7%"),
        ("(3,4)", "(3, 4)"),
        ("2015, 2013", "2013, 2015.0"),
        ("2013年", "2013"),
        ("3 to 5", "3–5"),
    ],
)
def test_matches(predicted: str, reference: str) -> None:
    assert structured_match(predicted, reference, 0.05)


@pytest.mark.parametrize(
    ("predicted", "reference"),
    [
        ("10.51", "10"),
        ("9.49", "10"),
        ("10", "-10"),
        ("2011", "2012"),
        ("12 km", "12 miles"),
        ("0.0001", "0"),
        ("", "0"),
        ("", ""),
        ("yes", "no"),
        ("Peru", "Peru, Chile"),
        ("Peru, Peru", "Peru, Chile"),
        ("Peru, Chile, Peru", "Peru, Chile"),
        ("10 or 20", "10"),
        ("1,23", "123"),
        ("(12", "-12"),
        ("A12", "12"),
        ("2013", "2014.0"),
        ("2013", "[2014]"),
        ("2013, 2016", "2014, 2015"),
        ("7M", "7"),
        ("7 m", "7 million"),
        ("(4, 3)", "(3, 4)"),
        ("€7", "$7"),
        ("7 km", "7 m"),
        ("7%", "7 km"),
        ("3–5", "3–6"),
        ("7:30", "7:31"),
        ("x" * 5000, "x"),
    ],
)
def test_does_not_match(predicted: str, reference: str) -> None:
    assert not structured_match(predicted, reference, 0.05)


def test_pairing_is_not_greedy() -> None:
    """10.4 fits both 10 and 10.8, 10 fits 10 only: first come, first served would leave 10.8 without a partner."""
    assert structured_match("10.4, 10", "10, 10.8", 0.05)


def test_a_long_list_in_any_order() -> None:
    """300 close numbers: a permutation is told at once, and one that is missing is noticed."""
    numbers = [str(10**6 + 7 * index) for index in range(300)]
    assert structured_match(", ".join(reversed(numbers)), ", ".join(numbers), 0.0)
    assert not structured_match(", ".join(["5", *numbers[1:]]), ", ".join(numbers), 0.0)


def test_the_official_metric_relaxes_years_too() -> None:
    assert relaxed_match("1950", "2012", 0.05) and not structured_match("1950", "2012", 0.05)


def test_zero_tolerance_is_exact() -> None:
    assert structured_match("1,234.0", "1234", 0.0) and not structured_match("1234.001", "1234", 0.0)


@given(st.floats(-1e9, 1e9), st.floats(0, 0.2), st.floats(-0.3, 0.3))
def test_tolerance_is_relative_to_the_reference(reference: float, tolerance: float, error: float) -> None:
    predicted = reference * (1 + error)
    if abs(abs(error) - tolerance) < 1e-6 or abs(reference) < 1e-3:
        return
    assert relaxed_match(f"{predicted:.9f}", f"{reference:.9f}", tolerance) == (abs(error) <= tolerance)


@given(st.text(max_size=40))
def test_any_text_can_be_parsed(text: str) -> None:
    parse_amount(text)
    assert structured_match(text, text, 0.05) == bool(normalised(read_answer(text)))


def levenshtein_by_recursion(left: str, right: str) -> int:
    if not left or not right:
        return len(left) + len(right)
    same = left[0] == right[0]
    return min(
        levenshtein_by_recursion(left[1:], right[1:]) + (not same),
        levenshtein_by_recursion(left[1:], right) + 1,
        levenshtein_by_recursion(left, right[1:]) + 1,
    )


@given(st.text("ab4", max_size=5), st.text("ab4", max_size=5))
def test_similarity_is_one_minus_distance_by_longest(left: str, right: str) -> None:
    longest = max(len(left), len(right))
    expected = 1.0 if longest == 0 else 1 - levenshtein_by_recursion(left, right) / longest
    assert text_similarity(left, right) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("predicted", "reference", "similarity"),
    [("407", "407", 1.0), ("47", "407", 2 / 3), ("", "407", 0.0), ("4 0\n7", " 4  0 7", 1.0), ("abc", "ABC", 0.0)],
)
def test_similarity_by_hand(predicted: str, reference: str, similarity: float) -> None:
    assert text_similarity(predicted, reference) == pytest.approx(similarity)


def test_composed_and_decomposed_letters_are_equal() -> None:
    assert text_similarity("cafe\u0301", "café") == 1.0
