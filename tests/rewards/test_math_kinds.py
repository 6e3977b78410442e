"""Answers that are right in other words, and answers that only look right, by kind."""

from __future__ import annotations

import pytest

from tinyr1v_ray.rewards.math_answer import math_equal

SAME = {
    "wrappings": [
        ("9", "<answer>9</answer>"),
        ("9", "**9**"),
        (r"\text{D}", "D"),
        (r"\textbf{(D)}", "(D)"),
        ("9", r"\[9\]"),
    ],
    "words": [(r"\mathrm{No}", "no"), (r"\text{Friday}", "friday"), ("H₂SO₄", "H2SO4"), (r"\text{CO}_2", "CO2")],
    "options": [
        ("D、A", "AD"),
        ("(A)(D)", "AD"),
        ("b, d", "BD"),
        ("D: f(A) = 3", "D"),
        ("D", "(D) 8 m"),
        ("Option C", "C"),
    ],
    "degrees": [
        ("75°", "75"),
        ("75 degrees", r"75^{\circ}"),
        ("75º", r"75\degree"),
        ("75度", "75"),
        (r"\angle B = 75^\circ", "75"),
    ],
    "powers": [
        ("3⁴", "81"),
        ("a²b", "a^2b"),
        ("10⁻²", "0.01"),
        ("3 x 10^5", "300000"),
        ("3.5E-2", "0.035"),
        (r"4·10^{3}", "4000"),
    ],
    "separators": [
        (r"7\,000", "7000"),
        ("7 000 000", "7000000"),
        ("7{,}000", "7000"),
        (r"7,\!000", "7000"),
        ("７，０００", "7000"),
    ],
    "fractions": [
        ("¾", "0.75"),
        ("-3½", "-3.5"),
        ("+4 1/3", "13/3"),
        ("4 1/3 kg", r"\frac{13}{3}"),
        (r"0.\overline{6}", "2/3"),
    ],
    "units": [
        ("7 cm²", "7 cm^2"),
        ("7 square feet", r"7\text{ ft}^2"),
        ("8", "8 kg/m^3"),
        ("36 km/h", "10 m/s"),
        ("2.5 L", "2500 mL"),
        ("1 h 20 min", "80 minutes"),
        ("7 dollars", r"\$7"),
        ("€7", "7"),
        ("7 pears", "7"),
        ("7平方米", "7 m^2"),
        ("7 million", "7000000"),
    ],
    "about": [("≈7.3", "7.3"), (r"x \approx 7.3", "7.3"), ("7.3", r"\approx 7.3"), (r"5\sqrt{2} \approx 7.07", "7.07")],
    "infinity and nothing": [("∞", r"+\infty"), ("∅", r"\varnothing"), (r"\{\}", r"\emptyset")],
    "intervals": [
        ("3 < t < 7", "(3,7)"),
        ("t ≥ 7", r"[7,\infty)"),
        (r"(-\infty, 7]", r"t \le 7"),
        (r"-7 \le t < 3", "[-7, 3)"),
        (r"t \in [-7,3)", r"-7 \le t < 3"),
        ("t<3 or t>7", r"(-\infty,3)\cup(7,\infty)"),
        (r"\{t \mid t > 7\}", r"(7,\infty)"),
        ("all real numbers", r"\mathbb{R}"),
    ],
    "chinese": [
        ("答案是7", "7"),
        ("故选：C。", "C"),
        ("（７，８）", "(7,8)"),
        ("t=3或t=7", "t=7, t=3"),
        ("7厘米", "7 cm"),
    ],
    "lists": [
        ("7 and 3", "3, 7"),
        ("t=3, t=7", "t=7 or t=3"),
        (r"3 \pm \sqrt{7}", r"3+\sqrt{7}, 3-\sqrt{7}"),
        ("red, blue", "blue, red"),
    ],
    "names": [("AB = 7 cm", "7"), ("g(t) = t+7", "t+7"), ("t = 3 + 4 = 7", "t = 7"), ("(s,t)=(3,7)", "(3, 7)")],
    "expressions": [
        (r"\pi(R^2-r^2)", r"\pi R^2 - \pi r^2"),
        (r"\frac{xyz}{4R}", r"\frac{zyx}{4R}"),
        ("14:6", "7:3"),
        ("sin(t)", r"\sin t"),
    ],
}
DIFFERENT = {
    "tiny": [
        (r"9.1\times 10^{-31}", r"1.67\times 10^{-27}"),
        (r"\frac{1}{28!}", r"\frac{1}{29!}"),
        ("3^{-50}", "3^{-51}"),
        (r"\sqrt{2} \cdot 10^{-19}", r"\sqrt{5} \cdot 10^{-19}"),
        (r"(10^{-9}, 7)", r"(3 \cdot 10^{-9}, 7)"),
        (r"t = 10^{-9}", r"t = 3 \cdot 10^{-9}"),
        (r"10^{-20} t", r"3 \cdot 10^{-20} t"),
        ("10^{-18}", "0"),
    ],
    "words": [
        ("on", "no"),
        ("not", "ton"),
        ("HO2", "H2O"),
        ("CO", "OC"),
        ("SW", "WS"),
        ("left turn", "turn left"),
        ("北", "南"),
    ],
    "cases": [("R - r", "r - R"), (r"\pi R^2 - \pi r^2", "0"), ("7 MW", "7 mW")],
    "dates and ranges": [
        ("2010", "2021-05-06"),
        ("2021-05-07", "2021-05-06"),
        ("-1", "3-4 hours"),
        ("-5", "1990-1995"),
        ("-1", "3–4"),
        ("-679", "555-1234"),
        ("12:30", "4:10"),
        ("8 am", "8 pm"),
    ],
    "options": [
        ("A. B. C.", "C"),
        ("A or D", "D"),
        ("(A) (D)", "A"),
        ("A: no. D: yes", "D"),
        ("not A", "A"),
        ("DA", "AD"),
        ("A, B, D", "AD"),
    ],
    "units": [
        ("7 m", "7 cm"),
        ("7 cm^2", "7 cm^3"),
        ("7 km/h", "7 m/s"),
        ("7 °C", "7 °F"),
        ("7 pears", "7 plums"),
        ("7%", "7 cm"),
        ("$7", "€7"),
        ("7 million", "7"),
        ("7k", "7"),
        ("7t", "7"),
        (r"7\pi", "7"),
    ],
    "numbers": [
        ("--7", "7"),
        ("5 9/7", "44/7"),
        ("7 7 7", "343"),
        ("110_2", "110_3"),
        ("7,8", "78"),
        ("three", "3"),
        ("less than 7", "7"),
    ],
    "intervals": [
        ("3 < t < 7", "[3,7]"),
        ("t > 7", r"[7,\infty)"),
        ("(3,7)", "(7,3)"),
        ("t<3 or t>8", r"(-\infty,3)\cup(7,\infty)"),
    ],
    "lists": [("3, 7, 8", "3, 7"), ("3", "3, 7"), (r"\pm 7", "7"), ("s=3, t=7", "s=7, t=3"), ("[3, 7)", "(3, 7]")],
    "names": [("s = 7", "t = 7"), ("8", r"AB = 7")],
    "approximations": [(r"5\sqrt{2} \approx 9", "9"), ("7.3", r"\approx 7.4"), ("3.1416", r"\pi")],
}


@pytest.mark.parametrize(
    ("kind", "predicted", "reference"), [(kind, *pair) for kind, pairs in SAME.items() for pair in pairs]
)
def test_right(kind: str, predicted: str, reference: str) -> None:
    assert math_equal(predicted, reference), kind


@pytest.mark.parametrize(
    ("kind", "predicted", "reference"), [(kind, *pair) for kind, pairs in DIFFERENT.items() for pair in pairs]
)
def test_wrong(kind: str, predicted: str, reference: str) -> None:
    assert not math_equal(predicted, reference), kind
    assert not math_equal(reference, predicted), kind


def test_an_equation_is_no_value_but_may_lead_to_one() -> None:
    """`s + t = 7` as reference asks for the equation; as answer, what follows the last equals sign counts."""
    assert not math_equal("7", "s + t = 7")
    assert math_equal("s + t = 7", "7") and math_equal("t + s = 7", "s + t = 7")
