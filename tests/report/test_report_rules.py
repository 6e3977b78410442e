"""By which rules the report counts results, names differences, and says what a metric is of."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_edits import edit_index, keep_base_and_amm_with_mme, keep_models, rename_algorithms, set_state
from report_page import Parsed

from tinyr1v_ray.evaluation.comparison import Difference
from tinyr1v_ray.evaluation.statistics import Estimate
from tinyr1v_ray.report.charts import Point, label_offsets
from tinyr1v_ray.report.claims import claims_of
from tinyr1v_ray.report.contents import read_contents
from tinyr1v_ray.report.findings import Compared, Findings
from tinyr1v_ray.report.outcomes import Model, Outcomes
from tinyr1v_ray.report.page import render
from tinyr1v_ray.report.recipe import Entry

pytestmark = pytest.mark.slow


@pytest.fixture
def run(recipe_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recipe_run, tmp_path / "run")


@pytest.mark.parametrize("state", ["waiting", "running", "failed"])
def test_answers_count_once_their_stage_is_done(state: str, run: Path) -> None:
    """The files of another attempt lie in the folder, scores.json included."""
    set_state(run, state, "evaluate/amm/seed1", "evaluate/wudi/seed0", "evaluate/wudi/seed1")
    contents = read_contents(run)
    amm = contents.outcomes.of_paper("amm")
    assert amm is not None and amm.seeds == (0,) and contents.outcomes.of_paper("wudi") is None
    assert any("Not evaluated yet: amm (seed 1); wudi." in note for note in contents.notes)


@pytest.mark.parametrize(("state", "num_seeds"), [("waiting", 1), ("failed", 1), ("done", 2)])
def test_trainings_are_shown_when_done(state: str, num_seeds: int, run: Path) -> None:
    set_state(run, state, "train/math/seed1")
    contents = read_contents(run)
    [lipo] = [curve for curve in contents.curves["math"]["length_mean"] if curve.algorithm == "lipo"]
    assert lipo.num_seeds == num_seeds
    of_math = [training for training in contents.trainings if training.entry.name == "math"]
    assert len(of_math) == num_seeds


def test_a_training_under_way_does_not_cut_the_others_short(run: Path) -> None:
    """It is drawn while it is the only one; beside the paper's first to last step stand whole trainings alone."""
    path = run / "stages/train-math-seed1-0011aabb/metrics.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    set_state(run, "running", "train/math/seed1")

    def lipo_steps() -> tuple[list[int], tuple[int, ...]]:
        contents = read_contents(run)
        curves = contents.curves["math"]["length_mean"]
        line = next(line for line in contents.beside.curves if line.algorithm == "lipo")
        return next(list(curve.steps) for curve in curves if curve.algorithm == "lipo"), line.steps

    assert lipo_steps() == ([1, 2, 3, 4, 5, 6], (1, 1, 3, 6))
    set_state(run, "failed", "train/math/seed0")
    assert lipo_steps() == ([1, 2], ())


def test_cosines_are_of_merges_that_are_done(run: Path) -> None:
    names = [f"merge/{name}/seed{{}}" for name in ("amm", "wudi", "task_arithmetic", "amm_no_projection")]
    set_state(run, "running", *(name.format(1) for name in names))
    geometry = read_contents(run).geometry
    assert geometry is not None and geometry.seeds == (0,)
    set_state(run, "waiting", *(name.format(0) for name in names))
    assert read_contents(run).geometry is None


def entry_of(role: str, domains: tuple[str, ...], start_from: str = "", algorithm: str = "lipo") -> Entry:
    return Entry("m", role, algorithm, domains, 0.5, start_from, 0, Path("m"), None, None, None)


@pytest.mark.parametrize(
    ("entry", "home"),
    [
        (entry_of("specialist", ("math",)), "math"),
        (entry_of("specialist", ("math", "geometry")), "math"),
        (entry_of("specialist", ("math", "math")), "math"),
        (entry_of("specialist", ("math",), "warm_up"), "math"),
        (entry_of("specialist", ()), ""),
        (entry_of("baseline", ("ocr",)), "ocr"),
        (entry_of("baseline", ("ocr", "ocr")), "ocr"),
        (entry_of("baseline", ("math", "ocr")), ""),
        (entry_of("baseline", ("ocr",), "math"), ""),
        (entry_of("merged", ()), ""),
        (entry_of("base", ()), ""),
    ],
)
def test_a_specialist_has_one_home(entry: Entry, home: str) -> None:
    assert entry.home == home


def test_a_specialist_of_two_sources_is_compared_at_home(run: Path) -> None:
    def two_names(index: dict[str, Any]) -> None:
        for row in index["models"]:
            row["domains"] = ["math", "geometry"] if row["name"] == "math" else row["domains"]

    edit_index(run, two_names)
    contents = read_contents(run)
    assert contents.domains == ("math", "structure", "ocr")
    assert contents.findings.training("math", "lipo", "grpo") is not None
    assert [curve.algorithm for curve in contents.curves["math"]["length_mean"]] == ["lipo", "grpo", "dapo"]


def test_lipo_leads_where_the_expert_is_of_grpo(run: Path) -> None:
    keep_models(run, lambda row: "boost" not in row["name"])
    rename_algorithms(run, math="grpo", math_grpo="lipo")
    contents = read_contents(run)
    pairs = [(row.after.name, row.before.name) for row in contents.findings.trainings if row.after.home == "math"]
    assert pairs == [
        *(("math_grpo", "math"), ("math_grpo", "math_dapo")),
        *(("math_grpo", "base"), ("math", "base")),
    ]
    [claim] = [claim for claim in contents.claims if claim.text == "On math, LIPO's answers are shorter than GRPO's"]
    assert claim.verdict == "opposite"
    assert contents.findings.merge("amm", "math") is not None


def test_without_lipo_nothing_is_said_of_it(run: Path) -> None:
    keep_models(run, lambda row: row["name"] in ("base", "math", "math_dapo"))
    rename_algorithms(run, math="grpo")
    contents = read_contents(run)
    pairs = [(row.after.name, row.before.name) for row in contents.findings.trainings]
    assert pairs == [("math", "math_dapo"), ("math", "base")]
    assert contents.claims[0].verdict == "missing" and contents.beside.shortenings == ()
    assert "GRPO on math takes the base from" in Parsed(render(contents)).text


def test_trainings_without_a_merge_are_compared_too(run: Path) -> None:
    """Nothing is merged, so no training is a specialist."""
    keep_models(run, lambda row: row["name"] in ("base", "math", "math_grpo"))
    edit_index(
        run, lambda index: [row.update(role=row["role"].replace("specialist", "baseline")) for row in index["models"]]
    )
    row = read_contents(run).findings.training("math", "lipo", "grpo")
    assert row is not None and (row.after.name, row.before.name) == ("math", "math_grpo")


def test_two_models_of_one_algorithm_are_not_one_curve(run: Path) -> None:
    rename_algorithms(run, math_dapo="grpo")
    [grpo] = [curve for curve in read_contents(run).curves["math"]["length_mean"] if curve.algorithm == "grpo"]
    assert grpo.num_seeds == 2 and grpo.mean[-1] == pytest.approx(47 + 2 + 0.5)


def test_one_seed_is_named_in_the_verdict(run: Path) -> None:
    keep_models(run, lambda row: row["seed"] == 0 or row["name"] not in ("math_grpo", "math_boost_1", "mixture"))
    contents = read_contents(run)
    [claim] = [claim for claim in contents.claims if claim.text == "On math, LIPO's answers are shorter than GRPO's"]
    assert (claim.verdict, claim.only_seed) == ("holds", 0) and "a difference for seed 0 alone" in claim.ours
    plain = ("AMM's one model is better than the base", "AMM is better than WUDI merging")
    others = [claim for claim in contents.claims if claim.text in plain]
    assert len(others) == 2 and all(claim.only_seed is None and "alone" not in claim.ours for claim in others)
    text = " ".join(Parsed(render(contents)).text.split())
    assert "holds here, seed 0 alone" in text and "20 items, seed 0 alone" in text and "difference, seed 0" in text
    assert "Mixture trainingseed 0" in text


MARGINS = {
    "a loss that may reach the margin": ((-0.005, -0.021, 0.011), 0.6, "open"),
    "a loss that stays within it": ((-0.004, -0.019, 0.011), 0.6, "holds"),
    "a small loss that is called one": ((-0.01, -0.015, -0.005), 0.001, "holds"),
    "a loss beyond it": ((-0.06, -0.09, -0.03), 0.001, "opposite"),
    "a loss that Holm takes back": ((-0.06, -0.11, -0.01), 0.2, "open"),
    "a gain": ((0.05, 0.01, 0.09), 0.02, "holds"),
}


@pytest.mark.parametrize("name", MARGINS)
def test_as_accurate_means_within_the_margin(name: str) -> None:
    estimate, adjusted, verdict = MARGINS[name]
    lipo, grpo = (
        Model(algorithm, "baseline", algorithm, ("math",), None, (entry_of("baseline", ("math",), "", algorithm),))
        for algorithm in ("lipo", "grpo")
    )
    difference = Difference(Estimate(*estimate), adjusted, adjusted)
    row = Compared(
        lipo, grpo, ("mathvista",), (0, 1), 9, (0.5, 0.5), difference, (1.0, 2.0), replace(difference), (1.0, 1.0)
    )
    claims = claims_of(Findings((row,), ()), Outcomes((lipo, grpo), (), (), ("mathvista",)))
    [claim] = [
        claim for claim in claims if claim.text == "On math, LIPO's accuracy is within 2 points of GRPO's or better"
    ]
    assert claim.verdict == verdict
    assert claim.ours.startswith("Plain accuracy, not the official score: 50.0 against 50.0 %")
    assert ("stays within" if 100 * estimate[1] > -2 else "reaches beyond") + " a loss of 2 points" in claim.ours


def test_the_margin_is_named_on_the_page(recipe_run: Path) -> None:
    text = " ".join(Parsed(render(read_contents(recipe_run))).text.split())
    assert "the interval stays within a loss of 2 points" in text and "ends above −2 points" in text


def test_averages_beside_the_papers_are_of_official_scores(run: Path) -> None:
    """MME gives half of an image's points for its pair: 50 with five whole pairs, 25 with none, both 50 % right."""
    keep_base_and_amm_with_mme(run)
    contents = read_contents(run)
    assert contents.outcomes.scored_otherwise == ("mme",)
    lines = {line.kind: line for line in contents.beside.merges}
    amm = lines["amm"]
    assert amm.score == pytest.approx((62.5 + 52.5 + 77.5 + 25) / 4)
    assert lines["base"].score == pytest.approx((32.5 + 32.5 + 42.5 + 50) / 4)
    assert amm.accuracy is not None and amm.accuracy.value == pytest.approx((0.625 + 0.525 + 0.775 + 0.5) / 4)
    assert amm.ocr == pytest.approx(77.5)
    text = " ".join(Parsed(render(contents)).text.split())
    assert "Tests are on plain accuracy, the share of right items" in text and "count otherwise on mme" in text
    assert "Average of 4 benchmarks (plain accuracy, not the official score) 60.6 against" in text
    assert "54.4" in text and "39.4" in text


def test_where_scores_are_plain_accuracies_none_of_it_is_said(recipe_run: Path) -> None:
    contents = read_contents(recipe_run)
    text = " ".join(Parsed(render(contents)).text.split())
    assert contents.outcomes.scored_otherwise == () and "not the official score" not in text
    assert "On this run's benchmarks the official score is the plain accuracy." in text


def test_labels_of_a_frontier_go_where_there_is_room() -> None:
    def point(label: str, tokens: float, accuracy: float) -> Point:
        return Point(label, "lipo", Estimate(tokens, tokens, tokens), Estimate(accuracy, accuracy, accuracy))

    crowd = [point("a", 0.0, 0.0), point("b", 10.0, 1.0), point("c", 10.5, 1.03)]
    assert label_offsets(crowd, crowd) == [(-6, -5), (-6, -5), (6, 5)]
    assert label_offsets(crowd[:1], crowd[:1]) == [(6, 5)]
