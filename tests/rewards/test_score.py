"""Weights, verdicts, domains and users' functions."""

from __future__ import annotations

import numpy as np
import pytest

from tinyr1v_ray.config.custom_function import load_function
from tinyr1v_ray.config.reward import RewardSettings
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.rewards.score import build_scorer, check_domains, read_user_score

RIGHT = "<think>3+4</think><answer>7</answer>"


@pytest.mark.parametrize(
    ("text", "answer", "domain", "total", "correct"),
    [
        (RIGHT, "7", "math", 1.0, True),
        (RIGHT, "8", "math", 0.1, False),
        ("The answer is 7.", "7", "math", 0.9, True),
        ("", "7", "math", 0.0, False),
        (RIGHT, "7.2", "structure", 1.0, True),
        (RIGHT, "7.5", "structure", 0.1, False),
        ("<think>a</think><answer>4O7</answer>", "407", "ocr", 0.9 * 2 / 3 + 0.1, False),
        ("<think>a</think><answer>407</answer>", "407", "ocr", 1.0, True),
        ("407", "407", "ocr", 0.9, True),
        ("<think>a</think><answer>Paid.</answer>", "Paid.", "ocr", 1.0, True),
        ("<think>a</think><answer>Paid</answer>", "Paid.", "ocr", 0.9 * 4 / 5 + 0.1, False),
        ("<think>a</think><answer>7</answer>", "<answer>7</answer>", "math", 1.0, True),
        ("<think>a</think><answer>7</answer>", "**7**", "structure", 1.0, True),
    ],
)
def test_totals_by_hand(text: str, answer: str, domain: str, total: float, correct: bool) -> None:
    score = build_scorer(RewardSettings())(text, answer, "How many?", domain)
    assert score.total == pytest.approx(total, abs=1e-12)
    assert score.correct is correct and score.is_scored
    assert set(score.parts) == {"answer", "format"}


@pytest.mark.parametrize(
    ("accepted", "domain", "total", "correct"),
    [
        (["9", "7", "8"], "math", 1.0, True),
        (["8", "9"], "math", 0.1, False),
        (["4", "70", "75"], "ocr", 0.9 / 2 + 0.1, False),  # one of the two characters of "70"
        (["1.5", "7.1"], "structure", 1.0, True),
    ],
)
def test_of_several_accepted_answers_the_best_counts(
    accepted: list[str], domain: str, total: float, correct: bool
) -> None:
    score = build_scorer(RewardSettings())(RIGHT, accepted, "How many?", domain)
    assert score.total == pytest.approx(total, abs=1e-12) and score.correct is correct


def test_format_weight_is_the_domains_own() -> None:
    scorer = build_scorer(RewardSettings(format_weight=0.5, format_weights={"ocr": 0.0}))
    assert scorer("7", "7", "", "math").total == 0.5
    assert scorer("7", "7", "", "ocr").total == 1.0


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.3, 1 / 3, 0.7, 1.0])
def test_a_perfect_answer_is_worth_exactly_one(weight: float) -> None:
    assert build_scorer(RewardSettings(format_weight=weight))(RIGHT, "7", "", "math").total == 1.0


def test_unknown_domains_name_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"domain 'orc' has no reward; .*math, ocr, structure; did you mean ocr\?"):
        check_domains(RewardSettings(), ["math", "orc"])
    with pytest.raises(ConfigError, match="'maths'"):
        build_scorer(RewardSettings(format_weights={"maths": 0.2}))
    check_domains(RewardSettings(function="hostile_rewards:by_text"), ["anything"])


def test_a_users_function_gives_the_answer_term() -> None:
    settings = RewardSettings(function="hostile_rewards:with_parts", format_weight=0.2)
    score = build_scorer(settings)(RIGHT, "7", "q", "own")
    assert score.total == pytest.approx(0.8 * 0.25 + 0.2)
    assert score.correct and score.parts["seen"] == len(RIGHT) + 5


@pytest.mark.parametrize(
    "path",
    [
        "hostile_rewards",
        "hostile_rewards:",
        ":f",
        "hostile_rewards:missing",
        "no_such_module:f",
        "hostile_rewards:NOT_A_FUNCTION",
    ],
)
def test_bad_import_paths_are_config_errors(path: str) -> None:
    with pytest.raises(ConfigError, match=r"reward\.function"):
        load_function("reward.function", path)


@pytest.mark.parametrize("returned", [np.float32(0.5), np.array(0.5), 0.5, {"score": 0.5}, {"score": 0.5, "part": 7}])
def test_numbers_of_every_kind_are_read(returned: object) -> None:
    value, _, correct = read_user_score(returned)
    assert value == 0.5 and correct is False


def test_verdict_follows_the_score_unless_given() -> None:
    assert read_user_score(True) == (1.0, {}, True)
    assert read_user_score({"score": 0.0, "correct": np.True_}) == (0.0, {}, True)


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "1",
        b"1",
        float("nan"),
        float("inf"),
        -0.1,
        1.01,
        [],
        {},
        {"score": None},
        {"score": 1, "x": "y"},
        {"score": 1, "correct": 1},
    ],
)
def test_anything_else_is_refused(returned: object) -> None:
    with pytest.raises(ValueError, match="scoring function returned"):
        read_user_score(returned)
