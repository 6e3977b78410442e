"""Which model is the paper's, over which seeds its metrics are, and that items which belong together are drawn so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cases import BENCHMARKS
from report_edits import add_mme, edit_index, keep_base_and_amm_with_mme, keep_models, rename_algorithms
from report_page import Parsed

from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS
from tinyr1v_ray.evaluation.comparison import crossed_mean
from tinyr1v_ray.report.contents import Contents, read_contents
from tinyr1v_ray.report.findings import average_accuracy, average_score, compare
from tinyr1v_ray.report.page import render
from tinyr1v_ray.report.paper import TEN_SCORES
from tinyr1v_ray.report.pictures import pictures_of

pytestmark = pytest.mark.slow

NOT_THE_TEN = "The average is not of the paper's ten benchmarks."


@pytest.fixture
def run(recipe_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recipe_run, tmp_path / "run")


def text_of(contents: Contents) -> str:
    return " ".join(Parsed(render(contents)).text.split())


def rename(folder: Path, **names: str) -> None:
    def change(index: dict[str, Any]) -> None:
        for row in index["models"]:
            row["name"] = names.get(row["name"], row["name"])

    edit_index(folder, change)


def test_the_papers_models_are_found_by_their_method(run: Path) -> None:
    """AMM under another name is AMM still: the same claims, tables and cosines."""
    keep_models(run, lambda row: row["name"] != "amm_no_projection")
    before = read_contents(run)
    rename(run, amm="adaptive", task_arithmetic="added")
    after = read_contents(run)
    assert [claim.verdict for claim in after.claims] == [claim.verdict for claim in before.claims]
    assert [line.score for line in after.beside.merges] == [line.score for line in before.beside.merges]
    assert all(line.score is not None for line in after.beside.merges)
    assert [row.after.name for row in after.findings.merges] == 8 * ["adaptive"] + ["added"]
    assert (after.labels["adaptive"], after.labels["added"]) == ("AMM (adaptive)", "Task arithmetic (added)")
    leading = [tag for tag, attributes in Parsed(render(after)).tags if attributes.get("class") == "leading"]
    assert leading == ["tr"]


def test_a_name_does_not_make_a_method(run: Path) -> None:
    keep_models(run, lambda row: row["name"] != "amm_no_projection")
    rename_algorithms(run, amm="ties")
    contents = read_contents(run)
    assert contents.labels["amm"] == "TIES (amm)" and contents.outcomes.of_paper("amm") is None
    [claim] = [claim for claim in contents.claims if claim.text == "AMM's one model is better than the base"]
    assert claim.verdict == "missing"
    assert [line.kind for line in contents.beside.merges if line.model is None] == ["amm"]


def test_of_several_by_one_method_the_name_decides(run: Path) -> None:
    contents = read_contents(run)
    amm = contents.outcomes.of_paper("amm")
    assert amm is not None and amm.name == "amm"
    rename(run, amm="adaptive")
    assert read_contents(run).outcomes.of_paper("amm") is None


def test_an_ablation_does_not_stand_in_for_what_is_not_evaluated_yet(run: Path) -> None:
    for folder in run.glob("stages/evaluate-amm-seed*"):
        shutil.rmtree(folder)
    assert read_contents(run).outcomes.of_paper("amm") is None


@pytest.mark.parametrize(
    ("benchmarks", "is_said"),
    [(tuple(TEN_SCORES), False), ((*TEN_SCORES, "own"), True), (tuple(TEN_SCORES)[1:], True), (BENCHMARKS, True)],
)
def test_the_average_is_the_papers_over_its_ten(recipe_run: Path, benchmarks: tuple[str, ...], is_said: bool) -> None:
    contents = read_contents(recipe_run)
    assert (NOT_THE_TEN in text_of(replace(contents, outcomes=replace(contents.outcomes, benchmarks=benchmarks)))) == (
        is_said
    )


def test_what_is_said_of_the_ten_depends_on_what_was_run(run: Path) -> None:
    assert "does not evaluate the paper's ten benchmarks; the miniature has three" in text_of(read_contents(run))
    keep_models(run, lambda row: row["name"] == "base")
    for seed in (0, 1):
        add_mme(run / f"stages/evaluate-base-seed{seed}-0011aabb", True)
    text = text_of(read_contents(run))
    assert "The AMM merge is not evaluated on the paper's ten benchmarks yet." in text and "has three" not in text


def test_retention_is_over_shared_seeds(run: Path) -> None:
    """With seed 0 both are right on 12 of 20 items of math; with seed 1, which only AMM has, on 13."""
    keep_models(run, lambda row: (row["name"], row["seed"]) != ("math", 1))
    contents = read_contents(run)
    [row] = [row for row in contents.rows if row.model.name == "amm"]
    assert row.cells["miniature:math"].retention == 1.0 and row.cells["miniature:math"].accuracy == 12.5 / 20
    assert row.cells["miniature:ocr"].retention == pytest.approx(31 / 33)
    assert "over the seeds and items that both have answered" in text_of(contents)


def test_averages_are_over_seeds_that_answered_everything(run: Path) -> None:
    """Seed 1 has lost its answers to math, so its better ones elsewhere are in no average."""
    (run / "stages/evaluate-amm-seed1-0011aabb/miniature_math/answers.jsonl").write_text("")
    amm = read_contents(run).outcomes.of_paper("amm")
    assert amm is not None and amm.outcomes["miniature:ocr"].score == pytest.approx(77.5)
    accuracy = average_accuracy(amm, BENCHMARKS)
    assert accuracy is not None and accuracy.value == pytest.approx(37 / 60)
    assert average_score(amm, BENCHMARKS) == pytest.approx(100 * 37 / 60)


def test_fewer_seeds_are_named_beside_the_paper(run: Path) -> None:
    keep_models(run, lambda row: (row["name"], row["seed"]) != ("wudi", 0))
    page = render(read_contents(run))
    assert "WUDI<br><small>seed 1</small>" in page[page.index('id="paper"') : page.index('id="curves"')]


def test_items_that_belong_together_are_drawn_together(run: Path) -> None:
    """Of ten images five have both questions right: ten are drawn, not twenty questions."""
    keep_base_and_amm_with_mme(run)
    contents = read_contents(run)
    base, amm = contents.outcomes.of_paper("base"), contents.outcomes.of_paper("amm")
    assert base is not None and amm is not None
    assert average_accuracy(base, ["mme"]) == crossed_mean([np.tile(np.arange(10) < 5, (2, 1))])
    row = compare(base, amm, ["mme"])
    assert row is not None and row.accuracy.estimate == crossed_mean([np.tile(np.repeat([0.5, -0.5], 5), (2, 1))])
    assert row.tokens is not None and row.tokens.p_value == 1.0
    assert contents.outcomes.grouped == ("mme",)
    text = text_of(contents)
    assert "those of mme that belong together" in text and "so on mme they come out too small" in text


def test_where_items_stand_alone_nothing_is_said_of_groups(recipe_run: Path) -> None:
    contents = read_contents(recipe_run)
    assert contents.outcomes.grouped == () and "belong together" not in text_of(contents)


def test_long_names_that_begin_alike_stay_apart(run: Path) -> None:
    """In the pictures' words, which count what is drawn: a training takes 24 s in phases, a stage 81 s and more."""
    stem = "a_name_that_is_longer_than_a_label_"
    for name, other in (("mixture", f"{stem}1"), ("sequential", f"{stem}2")):
        rename(run, **{name: other})
        edit_index(
            run, lambda index, n=name, o=other: [row.update(name=o) for row in index["stages"] if row["name"] == n]
        )
    stages, phases = pictures_of(read_contents(run))["seconds"]
    label = stem.capitalize().replace("_", " ")
    assert f"{label}1 48 s" in phases.alt and f"{label}2 48 s" in phases.alt
    assert f"train {stem}1 177 s" in stages.alt and f"train {stem}2 183 s" in stages.alt


def test_versions_of_one_problem_belong_together() -> None:
    def group(index: str, columns: dict[str, str]) -> str:
        return TEN_BENCHMARKS["mathverse"].group(BenchmarkItem(index, "?", "A", columns=columns))

    assert (
        group("1", {"problem_index": "7"}) == group("2", {"problem_index": "7"}) != group("3", {"problem_index": "8"})
    )
    assert group("1", {}) != group("2", {})
