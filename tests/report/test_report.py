"""The metrics of the report reproduce from the stored answers, and are those that the answers were made for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cases import BENCHMARKS, CASES, NUM_ITEMS, read_answers_slowly, write_evaluation
from report_page import Parsed

from tinyr1v_ray.report.contents import Contents, read_contents
from tinyr1v_ray.report.page import render

RUN_MODELS = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def contents(recipe_run: Path) -> Contents:
    return read_contents(recipe_run)


@pytest.fixture(scope="module")
def page(contents: Contents) -> str:
    return render(contents)


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


@pytest.fixture(scope="module")
def metrics(parsed: Parsed) -> dict[str, Any]:
    return dict(json.loads(parsed.scripts[0]))


def test_metrics_reproduce_from_the_stored_answers(recipe_run: Path, metrics: dict[str, Any]) -> None:
    slowly = read_answers_slowly(recipe_run)
    assert len(slowly) == len(CASES) * len(BENCHMARKS)
    found = {(m, b): row for m, model in metrics["models"].items() for b, row in model["benchmarks"].items()}
    assert found.keys() == slowly.keys()
    for key, (accuracy, tokens) in slowly.items():
        assert found[key]["accuracy"] == pytest.approx(accuracy, abs=1e-12)
        assert found[key]["score"] == pytest.approx(100 * accuracy, abs=1e-9)
        assert found[key]["tokens"] == pytest.approx(tokens, abs=1e-9)


def test_metrics_are_the_known_ones(metrics: dict[str, Any]) -> None:
    """With seed 1 one more item is right and answers are a token longer; items add 0 to 4 tokens, 2 on average."""
    for name, case in RUN_MODELS.items():
        for number, benchmark in enumerate(BENCHMARKS):
            row = metrics["models"][name]["benchmarks"][benchmark]
            assert row["accuracy"] == pytest.approx((2 * case.right[number] + 1) / (2 * NUM_ITEMS))
            assert row["tokens"] == pytest.approx(case.tokens + 2 + 0.5)
            num_right = 2 * case.right[number] + 1
            assert row["tokens_per_right_answer"] == pytest.approx(2 * NUM_ITEMS * row["tokens"] / num_right)
            assert (row["num_items"], row["seeds"]) == (NUM_ITEMS, [0, 1])


def test_what_the_tables_show_is_what_the_metrics_say(parsed: Parsed, metrics: dict[str, Any]) -> None:
    cells = [attributes for tag, attributes in parsed.tags if attributes.get("data-metric") == "accuracy"]
    shown = {(cell["data-model"], cell["data-benchmark"]): float(str(cell["data-value"])) for cell in cells}
    whole = [case.name for case in CASES if case.role != "baseline" or case.name in ("mixture", "sequential")]
    assert shown.keys() == {(name, benchmark) for name in whole for benchmark in BENCHMARKS}
    for (name, benchmark), value in shown.items():
        assert value == metrics["models"][name]["benchmarks"][benchmark]["accuracy"]
    assert "64.2" in parsed.text and "[" in parsed.text


def test_averages_and_retention(metrics: dict[str, Any]) -> None:
    """AMM: 25, 21 and 31 of 40 right; the specialists 25, 23 and 33 of 40 at home."""
    amm = metrics["models"]["amm"]
    value, low, high = amm["average_accuracy"]
    assert value == pytest.approx((25 + 21 + 31) / 120) and low < value < high
    assert amm["benchmarks"]["miniature:structure"]["retention"] == pytest.approx(21 / 23)
    assert amm["retention"] == pytest.approx((1 + 21 / 23 + 31 / 33) / 3)
    assert amm["average_tokens"][0] == pytest.approx(27.5)


def test_differences_are_of_the_same_items_and_seeds(recipe_run: Path, metrics: dict[str, Any]) -> None:
    """Estimates against the answers' own means; p-values of Holm against its definition, over the whole table."""
    slowly = read_answers_slowly(recipe_run)
    for rows in metrics["comparisons"].values():
        families = [part for row in rows for part in (row["accuracy"], row["tokens"])]
        for row in rows:
            pairs = [(slowly[row["after"], name], slowly[row["before"], name]) for name in row["benchmarks"]]
            for part, place in (("accuracy", 0), ("tokens", 1)):
                wanted = np.mean([late[place] - early[place] for late, early in pairs])
                assert row[part]["estimate"][0] == pytest.approx(wanted, abs=1e-9)
        for part in families:
            smaller = [other for other in families if other["p"] <= part["p"]]
            holm = max((len(families) - sum(o["p"] < s["p"] for o in families)) * s["p"] for s in smaller)
            assert part["holm_p"] == pytest.approx(min(1.0, holm))
            _, low, high = part["estimate"]
            assert part["is_called"] == ((low > 0 or high < 0) and part["holm_p"] < 0.05)


def test_which_models_are_compared(metrics: dict[str, Any]) -> None:
    pairs = {kind: [(row["after"], row["before"]) for row in rows] for kind, rows in metrics["comparisons"].items()}
    assert set(pairs["trainings"]) == {
        *(("math", other) for other in ("math_grpo", "math_dapo", "base", "math_boost_0.1", "math_boost_1")),
        *(("structure", "base"), ("ocr", "base")),
    }
    everything = ("base", "mixture", "sequential", "wudi", "task_arithmetic", "amm_no_projection")
    specialists = ("math", "structure", "ocr")
    wanted = {("amm", other) for other in (*everything, *specialists)} | {("task_arithmetic", "base")}
    assert set(pairs["merges"]) == wanted


def test_claims_follow_the_metrics(metrics: dict[str, Any]) -> None:
    """LIPO is 23 tokens shorter on every item at the same accuracy; AMM is far above task arithmetic, near WUDI."""
    verdicts = {claim["claim"]: claim["verdict"] for claim in metrics["claims"]}
    assert verdicts["On math, LIPO's answers are shorter than GRPO's"] == "holds"
    assert verdicts["On math, LIPO's accuracy is within 2 points of GRPO's or better"] == "open"
    assert verdicts["AMM is better than task arithmetic"] == "holds"
    assert verdicts["AMM is better than WUDI merging"] == "open"


def test_a_claim_can_come_out_the_opposite(recipe_run: Path, tmp_path: Path) -> None:
    """Lengths of LIPO and GRPO change places."""
    copy = shutil.copytree(recipe_run, tmp_path / "run")
    for name, tokens in (("math", 47), ("math_grpo", 24)):
        for seed in (0, 1):
            folder = copy / f"stages/evaluate-{name}-seed{seed}-0011aabb"
            shutil.rmtree(folder)
            write_evaluation(folder, replace(RUN_MODELS[name], tokens=tokens), seed)
    verdicts = {claim.text: claim.verdict for claim in read_contents(copy).claims}
    assert verdicts["On math, LIPO's answers are shorter than GRPO's"] == "opposite"


def test_cosines_are_weighted_with_the_norms(metrics: dict[str, Any]) -> None:
    """Norms 3, 4, 2 and 4, 3, 1; cosines 0.1 and -0.02: (12 x 0.1 - 12 x 0.02) / 24, and over 5 x 5."""
    assert metrics["cosines"]["experts"] == ["math", "structure", "ocr"]
    assert metrics["cosines"]["weighted"][0][1] == pytest.approx(0.04)
    assert metrics["cosines"]["whole"][0][1] == pytest.approx(0.96 / 25)
    assert np.diag(metrics["cosines"]["whole"]) == pytest.approx(1.0)


def test_curves_are_means_over_seeds_with_their_range(contents: Contents) -> None:
    """Lengths fall from 50 to the case's tokens; of four answers three are n, n + 4, n + 9 and one is n - 5."""
    [lipo] = [curve for curve in contents.curves["math"]["length_mean"] if curve.algorithm == "lipo"]
    assert [curve.algorithm for curve in contents.curves["math"]["length_mean"]] == ["lipo", "grpo", "dapo"]
    assert lipo.num_seeds == 2 and lipo.steps.tolist() == list(range(1, 7))
    assert (lipo.low[-1], lipo.mean[-1], lipo.high[-1]) == (26.0, 26.5, 27.0)
    line = next(line for line in contents.beside.curves if line.algorithm == "lipo")
    assert line.steps == (1, 1, 3, 6) and line.ours[-1] == 26.5


def test_lipo_prefers_short_answers_and_grpo_does_not(contents: Contents) -> None:
    """Three right answers of other lengths in each of 2 groups, 6 steps, 2 seeds: 72 pairs."""
    lipo, grpo = contents.preferences["math"], contents.preferences["math_grpo"]
    assert (lipo.num_shorter, lipo.num_longer, lipo.num_equal) == (72, 0, 0)
    assert (grpo.num_shorter, grpo.num_longer, grpo.num_equal) == (0, 0, 72)


def test_trainings_say_in_what_they_differ(contents: Contents) -> None:
    assert contents.differing["math", "math_grpo"] == ["algorithm.name"]
    assert contents.differing["math", "math_boost_1"] == ["algorithm.lipo.boost"]


def test_the_frontier_is_in_the_order_of_boost(contents: Contents) -> None:
    rows = contents.frontiers["math"]
    assert [row.model.boost for row in rows if row.family == "lipo"] == [0.1, 0.5, 1.0]
    assert {row.family for row in rows} == {"lipo", "grpo", "dapo", "base"}


def test_difficulty_adds_up(contents: Contents) -> None:
    models = {model.name: model for model in contents.outcomes.models}
    for table in contents.difficulty:
        assert table.categories == {"1": 5, "2": 5, "3": 5, "4": 5}
        for name, cells in table.cells.items():
            whole = np.mean([cells[category][0] for category in table.categories])
            assert whole == pytest.approx(models[name].outcomes[table.benchmark].accuracy)


def test_answers_shown_are_the_stored_ones(contents: Contents) -> None:
    for item in contents.items:
        assert item.num_models == len(CASES) and item.images and not item.num_lost_images
        for answer in item.answers:
            assert answer.correct == (f"<answer>{item.reference}</answer>" in answer.text)
    disputed = [item for item in contents.items if item.is_disputed]
    assert len(disputed) == 12 * len(BENCHMARKS)
    assert all(0 < item.num_right < item.num_models for item in disputed)


def test_groups_shown_have_rewards_and_advantages(contents: Contents) -> None:
    of_math = [group for group in contents.groups if group.model == "math"]
    assert [group.step for group in of_math] == [1, 3, 6]
    assert all(group.images and len(group.completions) == 4 for group in of_math)
    rewards = [row.reward for row in of_math[0].completions]
    advantages = [row.advantage for row in of_math[0].completions]
    assert rewards == [0.0, 1.0, 1.0, 1.0] and advantages[1] > advantages[2] > advantages[3] > advantages[0]
