"""What holds for all answers: a reference is right for itself, and what is different never becomes equal."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinyr1v_ray.rewards.extract import read_answer
from tinyr1v_ray.rewards.math_answer import math_equal
from tinyr1v_ray.rewards.score import ANSWER_TERMS
from tinyr1v_ray.rewards.structured import normalised, structured_match

EXAMPLES = settings(max_examples=60, deadline=None)
PIECES = (
    *[
        "1",
        "2.5",
        "1,000",
        "-",
        "+",
        "=",
        "x",
        "AB",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ",",
        "°",
        "%",
        "$",
        "**",
        '"',
        "。",
        "½",
        "∞",
        "≤",
        "、",
        "–",
        "|",
        ":",
        "\\",
        "yes",
        "^2",
        "答案是",
    ],
    *(" ", " or ", r"\frac{1}{2}", r"\text{cm}", " km/h"),
)
ANSWERS = st.one_of(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join), st.text(max_size=12))
NUMBERS = st.fractions(min_value=-(10**5), max_value=10**5, max_denominator=50)
WORDS = st.text("abdeilnorst", min_size=2, max_size=6)
POWERS = st.tuples(st.integers(10, 99), st.integers(-40, 40))


@EXAMPLES
@given(ANSWERS)
def test_every_reference_is_right_for_itself(answer: str) -> None:
    assume("answer>" not in answer and "think>" not in answer and normalised(read_answer(answer)))
    for domain, term in ANSWER_TERMS.items():
        assert term(f"<think>a</think><answer>{answer}</answer>", answer, 0.05) == 1.0, domain


def spellings(value: Fraction) -> list[str]:
    sign, size = "-" if value < 0 else "", abs(value)
    if value.denominator == 1:
        separated = f"{size.numerator:,}"
        numbers = [f"{size}", separated, f"{size}.0", separated.replace(",", " "), separated.replace(",", r"\,")]
        return [sign + number for number in numbers] + [f"x = {value}", f"{value} cm", f"答案是{value}。", f"≈{value}"]
    whole, rest = divmod(size.numerator, size.denominator)
    mixed = [f"{sign}{whole} {rest}/{size.denominator}", rf"{sign}{whole}\frac{{{rest}}}{{{size.denominator}}}"]
    simple = [
        str(value),
        rf"{sign}\frac{{{size.numerator}}}{{{size.denominator}}}",
        f"{2 * value.numerator}/{2 * size.denominator}",
    ]
    return simple + (mixed if whole else [])


@EXAMPLES
@given(NUMBERS, NUMBERS, st.randoms(use_true_random=False))
def test_numbers_are_equal_by_value_however_written(value: Fraction, other: Fraction, random: Random) -> None:
    assume(value != other)
    left, right, wrong = (random.choice(spellings(number)) for number in (value, value, other))
    assert math_equal(left, right) and math_equal(right, left)
    assert not math_equal(wrong, right) and not math_equal(right, wrong)


@EXAMPLES
@given(POWERS, POWERS)
def test_powers_of_ten_differ_at_every_scale(one: tuple[int, int], other: tuple[int, int]) -> None:
    forms = (
        r"{}.{}\times 10^{{{}}}",
        "{}.{}e{}",
        "{}.{} × 10^{}",
        r"\pi \cdot {}.{} \cdot 10^{{{}}}",
        r"(7, {}.{} \cdot 10^{{{}}})",
    )
    for form in forms:
        left, right = (form.format(*divmod(mantissa, 10), power) for mantissa, power in (one, other))
        assert math_equal(left, right) == (one == other), form


@EXAMPLES
@given(WORDS, WORDS, st.permutations(range(6)))
def test_different_words_are_never_equal(word: str, other: str, order: list[int]) -> None:
    anagram = "".join(word[place] for place in order if place < len(word))
    assert math_equal(rf"\text{{{word}}}", word)
    for wrong in {other, anagram} - {word}:
        assert not math_equal(wrong, word) and not structured_match(wrong, word, 0.05)


@EXAMPLES
@given(st.sets(st.sampled_from("ABCDEF"), min_size=1), st.sets(st.sampled_from("ABCDEF"), min_size=1))
def test_choices_are_equal_as_sets(chosen: set[str], key: set[str]) -> None:
    answers = [separator.join(sorted(chosen)) for separator in ("", ", ", "、", " and ")]
    answers.append("".join(f"({letter})" for letter in sorted(chosen, reverse=True)))
    assert all(math_equal(answer, "".join(sorted(key))) == (chosen == key) for answer in answers)
