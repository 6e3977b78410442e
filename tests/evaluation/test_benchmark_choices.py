"""Which option an answer chooses, on what people and models write; every expected letter was decided by hand."""

from __future__ import annotations

import pytest

from tinyr1v_ray.evaluation.benchmarks.choices import find_choice
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.options import letters_of_key
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS

FOUR = {"A": "12", "B": "2", "C": "the red ball", "D": "none"}
PICTURES = {letter: letter for letter in "ABCDE"}
FORMULAS = {"A": r"$\frac{1}{2}$", "B": r"$\frac{1}{3}$", "C": r"$\frac{2}{3}$", "D": r"$\sqrt{2}$", "E": r"$2\pi$"}
FRACTIONS = {"A": "1/4", "B": "1/2", "C": "3/4", "D": "1", "E": "5/4"}
AREAS = {"A": r"$24 \mathrm{~cm}^{2}$", "B": r"$25 \mathrm{~cm}^{2}$", "C": r"$26 \mathrm{~cm}^{2}$"}
ANGLES = {"A": r"$10^{\circ}$", "B": r"$15^{\circ}$", "C": r"$20^{\circ}$"}
SETS = {"A": "P and R", "B": "Q and S", "C": "only R", "D": "none of them", "E": "P, Q and R"}
YES = {"A": "Yes", "B": "No"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("B. 2", "B"),
        ("**B**", "B"),
        ("<think>A? No.</think><answer>B</answer>", "B"),
        (r"First A, then \boxed{B}", "B"),
        (r"\boxed{\text{C}}", "C"),
        ("The correct answer is (B) 2.", "B"),
        ("Answer: option C", "C"),
        ("So the answer is B because A is too large.", "B"),
        ("the red ball", "C"),
        ("It is the red ball.", "C"),
        ("12", "A"),
        ("The number is 12.", "A"),
        ("A ball", ""),
        ("A or B", ""),
        ("A is right because it fits.", "A"),
        ("I cannot determine the answer from the image.", ""),
        ("Sorry, I can't help with that.", ""),
        ("", ""),
        ("<think>B, surely B", ""),
        ("E", ""),
        ("112", ""),
        ("2.5", ""),
    ],
)
def test_a_choice_is_read_from_what_people_and_models_write(text: str, letter: str) -> None:
    assert find_choice(text, FOUR).letter == letter


@pytest.mark.parametrize(
    "text",
    [
        "(A),(B),(C)",
        "A, B",
        "A and C",
        "A. B. C.",
        "A/B",
        "N/A",
        "ABC",
        "The answer is A and B.",
        "The answer is A, B or C.",
        "The answer is either A or B",
        "A or maybe B",
        "Both A and B",
        "A. 12\nB. 2\nC. the red ball\nD. none",
        "Not A, and not B.",
        "The answer is not A.",
        "Option B is not correct.",
        "Neither A nor B is correct.",
        "Choice (D) is incorrect.",
        "It is not the red ball.",
        "C++",
        "A+",
        "The answer is A triangle.",
        "A triangle is shown.",
        "Triangle ABC has a right angle at A.",
        "The distance from A to B is 5.",
        "Point A lies on the circle.",
        "∠A = 30",
        "the length of side A",
        "Vitamin C is needed.",
    ],
)
def test_no_or_several_letters_are_no_choice(text: str) -> None:
    choice = find_choice(text, FOUR)
    assert (choice.letter, choice.is_sure) == ("", False)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: C\n\nOption A is too small and option B is too large.", "C"),
        ("The answer is A. Option C would double it.", "A"),
        ("B\nOption D is wrong.", "B"),
        ("The answer is (A).\n\nChoice (B) is incorrect because of x.\n\nChoice (C) is incorrect.", "A"),
        ("Answer: B\n\nExplanation: A is wrong, C is wrong, D too.", "B"),
        ("The answer is A. No, wait: the answer is B.", "B"),
        ("The answer is B, not A.", "B"),
        ("The answer is B rather than A", "B"),
        ("(A) is wrong and (B) is right", "B"),
        ("Option B is correct.", "B"),
        ("I would go with option C.", "C"),
        ("Final answer: **(C)**", "C"),
        (r"The answer is $\boxed{C}$", "C"),
        ("故选:C", "C"),
        ("答案是B", "B"),
        ("A: no\nB: yes\nAnswer: B", "B"),
        ("[B]", "B"),
        ("B - 2", "B"),
    ],
)
def test_a_stated_letter_is_sure_whatever_is_rejected_beside_it(text: str, letter: str) -> None:
    choice = find_choice(text, FOUR)
    assert (choice.letter, choice.is_sure) == (letter, True)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Not A, but B.", "B"),
        ("We eliminate A, so it must be C.", "C"),
        ("Option A fails, hence B", "B"),
        ("It is the red ball.", "C"),
    ],
)
def test_what_is_only_mentioned_is_not_sure(text: str, letter: str) -> None:
    choice = find_choice(text, FOUR)
    assert (choice.letter, choice.is_sure) == (letter, False)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The fourth piece has a corner.", ""),
        ("The lines A and B cross.", ""),
        ("Triangle B has the largest area.", ""),
        ("Statue D", "D"),
        ("Point C", "C"),
        ("The ant reaches C.", "C"),
        (r"\boxed{(B),(D)}", ""),
        ("e", "E"),
    ],
)
def test_options_that_are_pictures_are_read_by_letter(text: str, letter: str) -> None:
    assert find_choice(text, PICTURES).letter == letter


@pytest.mark.parametrize(
    ("options", "text", "letter"),
    [
        (FORMULAS, r"\boxed{\frac{1}{2}}", "A"),
        (FORMULAS, "0.5", "A"),
        (FORMULAS, r"\boxed{\frac{3}{6}}", "A"),
        (FORMULAS, "√2", "D"),
        (FORMULAS, r"\boxed{2 \pi}", "E"),
        (FORMULAS, r"$\textbf{(D)} \frac{\sqrt{2}}{2}$", "D"),
        (FORMULAS, r"So the probability is $\frac{1}{3}$.", "B"),
        (FORMULAS, r"\boxed{\frac{2}{\sqrt{2}}}", "D"),
        (FORMULAS, r"\boxed{\sqrt{8}/2}", "D"),
        (FORMULAS, r"\boxed{\frac{4\pi}{2}}", "E"),
        ({"A": "$2x+1$", "B": r"$\frac{x}{2}$"}, r"\boxed{1+2x}", "A"),
        ({"A": "$2x+1$", "B": r"$\frac{x}{2}$"}, r"\boxed{1+2y}", ""),
        (FORMULAS, r"\boxed{P = \frac{1}{3}}", "B"),
        (FORMULAS, r"\boxed{\pi}", ""),
        (FORMULAS, r"\boxed{2}", ""),
        (FORMULAS, r"\boxed{\frac{1}{4}}", ""),
        (FRACTIONS, r"\boxed{\frac{1}{2}}", "B"),
        (FRACTIONS, r"\frac{1}{5}", ""),
        (FRACTIONS, "1.25", "E"),
        (FRACTIONS, "x^1", ""),
        (AREAS, r"\boxed{25}", "B"),
        (AREAS, "The area is 26 cm².", "C"),
        (AREAS, "26 m^2", ""),
        (AREAS, "240", ""),
        (ANGLES, "15 degrees", "B"),
        (ANGLES, r"\boxed{20^{\circ}}", "C"),
        (ANGLES, "1", ""),
        (SETS, "P, Q and R", "E"),
        (SETS, "The answer is P and R.", "A"),
        (SETS, "R", ""),
        (YES, "The answer is **(A) Yes**.", "A"),
        (YES, "No, because it is open.", "B"),
    ],
)
def test_an_options_value_is_an_answer(options: dict[str, str], text: str, letter: str) -> None:
    assert find_choice(text, options).letter == letter


@pytest.mark.parametrize(
    ("key", "options", "letters"),
    [
        ("B", {}, "B"),
        ("(D)", {}, "D"),
        ("c", {}, "C"),
        ("True", {"A": "True", "B": "False"}, "A"),
        ("A\nC", {}, "AC"),
        ("B, D", {}, "BD"),
        ("red", {"A": "blue"}, ""),
    ],
)
def test_a_key_is_a_letter_a_text_or_several_letters(key: str, options: dict[str, str], letters: str) -> None:
    assert letters_of_key(key, options) == frozenset(letters)


@pytest.mark.parametrize(
    ("text", "correct"),
    [("C, D", True), ("<answer>D and C</answer>", True), ("(C)(D)", True), ("C", False), ("A, C, D", False)],
)
def test_several_letters_are_right_where_the_key_has_them(text: str, correct: bool) -> None:
    question = "Which two?\nOptions:\nA. 1\nB. 2\nC. 3\nD. 4"
    item = BenchmarkItem("1", question, "C\nD", columns={"question_type": "multi-choice"})
    assert TEN_BENCHMARKS["mathverse"].grade(item, text).correct is correct
