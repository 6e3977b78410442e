"""Which number an answer gives: free ones with their trimmings, and none of those inside an expression or a bound."""

from __future__ import annotations

from fractions import Fraction

import pytest

from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.numeric import the_number
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS


@pytest.mark.parametrize(
    "text",
    [
        *(r"\sqrt{7}", r"70\pi", r"\frac{\pi}{7}", r"\frac{7}{x}", r"2\sqrt{7}", r"\log 7", r"7^{2}", "7²", "7!", "7i"),
        *("7n", "7 x", "7π", "x_7", "T7", "7rd", "7D", "|7|", "±7", "7/x", "y = 7x", "7(x+1)", "7 + x", "x - 7"),
        *("g(7)", "The minimum is at f(7).", "7:2", "7:30", "7-8 hours", "2021-07-07", r"7 \times 4"),
        *("7k", "7M", "$7M", "7 million", "7 dozen", "7 squared", "7 and a half", "7万"),
        *("more than 7", "at least 7", "up to 7", "x > 7", r"x \leq 7", "x <= 7", "x != 7", "not 7", "isn't 7"),
        *("7 or more", "twice 7", "half of 7", "the square root of 7", "minus 7", "Figure 7", "step 7"),
        *("7,8,9", "7 or 8", "(7,8)", "between 7 and 8", "x = 7 or x = 8", "x = 7, y = 8"),
        *("I cannot tell, maybe 7", "7/0", "", "no number"),
    ],
)
def test_what_is_no_number_of_its_own(text: str) -> None:
    assert the_number(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", "7"),
        ("−7", "-7"),
        ("- 7", "-7"),
        ("x = - 7", "-7"),
        ("The sum is $-7$.", "-7"),
        ("1,700", "1700"),
        (r"1\,700", "1700"),
        ("1,700.5", "3401/2"),
        ("$7.50", "15/2"),
        ("€7", "7"),
        ("7 cm", "7"),
        ("7cm", "7"),
        ("7 cm²", "7"),
        (r"7 \mathrm{~cm}^{2}", "7"),
        ("7 m/s^2", "7"),
        ("7 square meters", "7"),
        ("7°", "7"),
        (r"7^{\circ}", "7"),
        ("7%", "7"),
        ("7元", "7"),
        ("about 7", "7"),
        (r"x \approx 7.2", "36/5"),
        ("7/4", "7/4"),
        (r"\dfrac74", "7/4"),
        ("1 3/4", "7/4"),
        ("1¾", "7/4"),
        (r"1\frac{3}{4}", "7/4"),
        ("7e2", "700"),
        (r"7\times10^{-2}", "7/100"),
        ("10^-2", "1/100"),
        ("f(0) = 7", "7"),
        ("3 + 4 = 7 balls", "7"),
        ("14/2 = 7", "7"),
        ("There are 7 more cubes than balls.", "7"),
        ("The nail is about **7 inches** long.", "7"),
        ("7 (seven)", "7"),
        (r"So \(x = 7\)", "7"),
        ("Seven", "7"),
    ],
)
def test_a_number_with_what_leaves_its_value_alone(text: str, value: str) -> None:
    assert the_number(text) == Fraction(value)


LIST = {"question_type": "free_form", "answer_type": "list", "choices": "[]"}
FREE = {"choices": "[]"}


@pytest.mark.parametrize(
    ("name", "columns", "key", "text", "correct"),
    [
        ("mathvista", LIST, "[3, 8]", "<answer>[3,8]</answer>", True),
        ("mathvista", LIST, "[300, 800]", "[300,800]", True),
        ("mathvista", LIST, "[300, 800]", "300,800", True),
        ("mathvista", LIST, "[1200]", "1,200", True),
        ("mathvista", LIST, "[3, 8]", "[8,3]", False),
        ("mathvista", LIST, "[3, 8]", "[3x, 8]", False),
        ("mathvista", LIST, "['a', 'b']", "['a','b']", True),
        ("mathvision", FREE, "7", r"\boxed{7,9}", False),
        ("mathvision", FREE, "7", r"\boxed{7 \text{ million}}", False),
        ("mathvision", FREE, "1/2", r"The chance is $\frac{1}{2}$.", True),
        ("mathverse", {"question_type": "free-form"}, "7", r"\boxed{7\sqrt{2}}", False),
        ("mathverse", {"question_type": "free-form"}, "7", "The length is 7 cm.", True),
        ("ocr_reasoning", {"question_type": "free_form", "answer_type": "integer"}, "7", "7 thousand", False),
        ("charxiv", {"inst_category": "3.0"}, "0.01", "10^{-2}", True),
        ("charxiv", {"inst_category": "4.0"}, "1500", "1.5e3", True),
        ("charxiv", {"inst_category": "4"}, "7", "no more than 7", False),
        ("charxiv", {"inst_category": "1"}, "(b)", "b", True),
        ("charxiv", {"inst_category": "1"}, "Left, Right", "right, left", True),
        ("charxiv", {"inst_category": "2"}, "Left, Right", "right, left", False),
        ("charxiv", {"inst_category": "1"}, "ACC", "ACC+", False),
        ("chartqa", {}, "Inc.", "Inc.", True),
        ("chartqa", {}, "Inc.", "inc", True),
        ("chartqa", {}, "1,200", "1,210", True),
        ("chartqa", {}, "'Other'", "Other", True),
    ],
)
def test_numbers_lists_and_terms_of_the_benchmarks(
    name: str, columns: dict[str, str], key: str, text: str, correct: bool
) -> None:
    grade = TEN_BENCHMARKS[name].grade(BenchmarkItem("1", "?", key, columns=columns), text)
    assert grade.correct is correct


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes, there is no doubt.", "Yes"),
        ("No\nThe sign does not say yes.", "No"),
        ("**No**, it is red.", "No"),
        ("There is no cat, so the answer is yes.", "Yes"),
        (r"No cat, no dog: \boxed{Yes}", "Yes"),
        ("The picture shows two, so no.", "No"),
        ("n", "No"),
        ("yes or no", ""),
        ("Nothing of that kind", ""),
        ("It says yes here and no there", ""),
    ],
)
def test_mme_reads_the_first_word_or_the_statement(text: str, said: str) -> None:
    verdicts = [
        TEN_BENCHMARKS["mme"].grade(BenchmarkItem("1", "?", key, columns={"image_path": "a"}), text).correct
        for key in ("Yes", "No")
    ]
    assert verdicts == [said == "Yes", said == "No"]
