"""The conflict dial in the report: retention and AMM's lead from stored answers, and what is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_edits import edit_index

from tinyr1v_ray.report.contents import read_contents
from tinyr1v_ray.report.dial import DialCase, read_dial
from tinyr1v_ray.report.page import render
from tinyr1v_ray.report.page_metrics import metrics_of
from tinyr1v_ray.report.recipe import read_recipe

RIGHT = {
    "base": {"math": 40, "ocr": 60},
    "expert_0": {"math": 80},
    "expert_1": {"ocr": 60},
    "amm": {"math": 72, "ocr": 60},
    "ties": {"math": 40, "ocr": 30},
}
"""Of 100 items the first so many are right."""


def point(overlap: float, right: dict[str, dict[str, int]] = RIGHT) -> dict[str, Any]:
    return {
        "case": "plain",
        "planted": True,
        "overlap": overlap,
        "domains": ["math", "ocr"],
        "cosine": overlap + 0.01,
        "norms": [1.0, 1.0],
        "methods": {"amm": "amm", "ties": "ties"},
        "num_items": 100,
        "rows": [
            {"model": model, "domain": domain, "right": [1] * count + [0] * (100 - count), "tokens": [9] * 100}
            for model, by_domain in right.items()
            for domain, count in by_domain.items()
        ],
    }


@pytest.fixture
def turned(recipe_run: Path, tmp_path: Path) -> Path:
    """The recipe's folder with two points of the dial, the larger overlap first; at it all methods are alike."""
    folder = tmp_path / "run"
    shutil.copytree(recipe_run, folder)
    alike = {**RIGHT, "amm": RIGHT["ties"]}
    for number, row in enumerate((point(0.4, alike), point(0.0))):
        stage = folder / "stages" / f"dial-{number}"
        stage.mkdir(parents=True)
        (stage / "dial.json").write_text(json.dumps(row))
        name = f"plain_{row['overlap']:g}"
        entry = {"id": f"dial/{name}/seed0", "kind": "dial", "name": name, "seed": 0, "folder": f"stages/dial-{number}"}
        entry |= {"fingerprint": "0", "needs": [], "state": "done", "seconds": 1.0}
        edit_index(folder, lambda index, entry=entry: index["stages"].append(entry))
    return folder


def only_case(folder: Path) -> DialCase:
    (case,), remarks = read_dial(read_recipe(folder))
    assert not remarks
    return case


def test_retention_is_accuracy_over_the_expert_s_own(turned: Path) -> None:
    """AMM: 72 of 80 and 60 of 60, so 0.95; TIES: 40 of 80 and 30 of 60, so 0.5; the base 0.5 and 1."""
    case = only_case(turned)
    assert [each.overlap for each in case.points] == [0.0, 0.4] and case.num_experts == 2
    first = case.points[0]
    assert first.retention == pytest.approx({"base": 0.75, "amm": 0.95, "ties": 0.5})
    assert (first.experts, first.cosine, first.seeds) == (pytest.approx(0.7), 0.01, (0,))
    assert list(case.labels.values()) == ["AMM", "TIES", "Base"]


def test_amm_leads_where_it_is_right_more_often_on_the_same_items(turned: Path) -> None:
    """32 and 30 points more than TIES on the two domains; where all are alike nothing is called."""
    first, second = only_case(turned).points
    assert first.lead["ties"].estimate.value == pytest.approx(0.31) and first.lead["ties"].sign == 1
    assert second.lead["ties"].estimate.value == 0 and second.lead["ties"].sign == 0
    assert second.lead["base"].sign == -1
    assert only_case(turned).verdict() == (
        "AMM is better than Base at 0; better than TIES at 0; worse than Base at 0.4; "
        "no other difference is called one."
    )


def test_experts_no_better_than_the_base_are_told_of(turned: Path) -> None:
    row = point(0.4, {**RIGHT, "base": {"math": 80, "ocr": 60}})
    (turned / "stages/dial-0/dial.json").write_text(json.dumps(row))
    assert only_case(turned).verdict().endswith("The experts are no better than the base at 0.4.")


def test_the_page_shows_the_dial(turned: Path) -> None:
    contents = read_contents(turned)
    page = render(contents)
    assert "plain: 2 experts" in page and "better than TIES at 0" in page
    (shown,) = metrics_of(contents)["dial"]
    assert shown["points"][0]["retention"]["amm"] == pytest.approx(0.95)
    assert [each["overlap"] for each in shown["points"]] == [0.0, 0.4]


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: row["rows"][0]["right"].pop(),
        lambda row: row["rows"].pop(),
        lambda row: row.update(domains=["math"] * 3),
        lambda row: row.update(cosine="much"),
        lambda row: [each.update(right=[0] * 100) for each in row["rows"]],
        lambda row: row.update(rows=[]),
    ],
)
def test_a_damaged_point_is_left_out_and_said(turned: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    row = point(0.4)
    damage(row)
    (turned / "stages/dial-0/dial.json").write_text(json.dumps(row))
    (case,), (remark,) = read_dial(read_recipe(turned))
    assert [each.overlap for each in case.points] == [0.0]
    assert "dial/plain_0.4/seed0" in remark and "left out" in remark


def test_an_unfinished_point_is_not_shown(turned: Path) -> None:
    edit_index(turned, lambda index: [row.update(state="running") for row in index["stages"] if row["kind"] == "dial"])
    assert read_dial(read_recipe(turned)) == ([], [])
