"""Where an answer is found in a completion, and where it is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyr1v_ray.rewards.extract import extract_answer, extract_reading, last_boxed, read_answer, read_reading
from tinyr1v_ray.rewards.format import format_score


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>3+4</think><answer>7</answer>", "7"),
        ("<think>3+4</think>\n<answer>\n 7 \n</answer>\n", "7"),
        ("<answer>7</answer>", "7"),
        ("<answer>6</answer> no, <answer>7</answer>", "7"),
        ("<think><answer>6</answer></think><answer>7</answer>", "7"),
        ("<think>a</think>b<think>c</think><answer>7</answer>", "7"),
        (r"<think>x</think> The result: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{ 2 }", "2"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"<answer>\boxed{42}</answer>", "42"),
        (r"<answer>so x = \boxed{42} cm</answer>", "42"),
        ("<answer>The final answer is: 42.</answer>", "42"),
        ("<think>x</think>7", "7"),
        ("One step.\n\nThe answer is 12.\n\n", "12"),
        ("**Answer:** $12$", "12"),
        ("**Answer: 12**", "12"),
        ("**12**", "12"),
        ("Therefore, the correct answer is **B**.", "B"),
        ("answer = 3.50", "3.50"),
        ("<answer>$\\frac{1}{2}$.</answer>", r"\frac{1}{2}"),
        ("<answer>**'Total'**</answer>", "Total"),
        ("<answer>$5 and $6</answer>", "$5 and $6"),
        ("<answer>and so on...</answer>", "and so on..."),
        ("answers vary", "answers vary"),
        ("Answer: **12**", "12"),
        ("#### 42", "42"),
        ("The correct option is (C).", "(C)"),
        (r"<answer>\textbf{(D)}</answer>", "(D)"),
        ("<think>x</think>所以正确答案是**B**。", "B"),
        ("<think>x</think>【答案】15", "15"),
        ("<think>x</think>**答案：** 7", "7"),
        ("综上，应选：（A）", "（A）"),
        ("答案不唯一", "答案不唯一"),
        ("选择题", "选择题"),
        ("<answer>.</answer>", "."),
    ],
)
def test_rules_in_order(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n ",
        "<think>7",
        "<think>it is <answer>7</answer>",
        "<think>7</think>",
        "<think>a</think><think>7",
        r"<think>\boxed{7}",
    ],
)
def test_unfinished_reasoning_has_no_answer(text: str) -> None:
    assert extract_answer(text) == ""


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("<answer> 42 </answer>", "42"),
        ("**9**", "9"),
        (r"\text{D}", "D"),
        (r"Thus we get \boxed{8}.", "8"),
        ("$x+1$", "x+1"),
        ("“Monday”", "Monday"),
    ],
)
def test_a_reference_is_read_like_an_answer(reference: str, says: str) -> None:
    assert read_answer(reference) == says == extract_answer(f"<answer>{reference}</answer>")


@pytest.mark.parametrize(
    "text", ["Sum: 9.", '"EXIT"', "**NEW**", "The answer is 3.", "$4.50", "`ls`", "答案：5。", "a\nb"]
)
@pytest.mark.parametrize(
    "form", ["<answer>{}</answer>", "<think>x</think>{}", r"\boxed{{{}}}", r"<answer>\boxed{{{}}}</answer>"]
)
def test_a_reading_loses_nothing_but_tags_or_a_box(text: str, form: str) -> None:
    assert extract_reading(form.format(text)) == text == read_reading(text)


def test_unfinished_reasoning_reads_nothing() -> None:
    assert extract_reading("<think>EXIT") == "" and read_reading(r"<answer>\boxed{a}</answer>") == "a"


def test_unclosed_tag_is_no_answer() -> None:
    assert extract_answer("<think>x</think><answer>7") != "7"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed {7}", "7"),
        (r"\\boxed{7}", "7"),
        (r"\boxed{\boxed{1}}", "1"),
        (r"} {\boxed{7} {", "7"),
        (r"\boxed{}", ""),
        (r"\boxed{a{b}c}", "a{b}c"),
        (r"\fbox{3}", "3"),
        ("{x}", None),
        (r"\boxed{\}", None),
    ],
)
def test_boxes_balance(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_survived_and_an_answer_is_stable(reasoning: str, answer: str) -> None:
    found = extract_answer(f"<think>{reasoning}</think><answer>{answer}</answer>")
    assert read_answer(found) == found


@settings(max_examples=30, deadline=2000)
@given(
    st.sampled_from(["<answer>", "</answer>", "\\boxed{", "{", "}", "<think>", "</think>", "$", "\n", "answer: "]),
    st.integers(1, 4000),
)
def test_long_repetitions_take_no_long_time(piece: str, times: int) -> None:
    extract_answer(piece * times)
    format_score(piece * times)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>a</think><answer>7</answer>", 1.0),
        ("\n <think></think>\n\\boxed{7}", 1.0),
        ("<think>a</think> so <answer>7</answer> it is", 1.0),
        ("a<think>b</think><answer>7</answer>", 0.0),
        ("<think>a</think><think>b</think><answer>7</answer>", 0.0),
        ("<think>a</think><answer>7", 0.0),
        ("<think>a</think>\\boxed{7", 0.0),
        ("<think><answer>7</answer></think>", 0.0),
        ("</think><think><answer>7</answer>", 0.0),
        ("<answer>7</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_format(text: str, score: float) -> None:
    assert format_score(text) == score
