"""What models wrote stays text, nothing is fetched, and what a recipe lacks is said in the report and stops nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from report_cases import HOSTILE
from report_edits import edit_index
from report_page import Parsed

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.stored import StoredAnswer, StoredItem
from tinyr1v_ray.report.contents import read_contents
from tinyr1v_ray.report.evaluations import Answered
from tinyr1v_ray.report.outcomes import outcome_of
from tinyr1v_ray.report.page import render, write_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(recipe_run: Path) -> str:
    return render(read_contents(recipe_run))


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


def test_what_models_wrote_stays_text(page: str, parsed: Parsed) -> None:
    assert HOSTILE not in page and HOSTILE in parsed.text
    assert len(parsed.scripts) == 2 and "taken" not in parsed.scripts[0] + parsed.scripts[1]
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"iframe", "object", "embed", "base"})


def test_a_hostile_name_stays_text(recipe_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(recipe_run, tmp_path / "run")
    index = json.loads((copy / "recipe.json").read_text())
    index["name"] = HOSTILE + " $\\frac{"
    for model in index["models"]:
        model["name"] += " $\\frac{" + HOSTILE if model["name"] == "wudi" else ""
    (copy / "recipe.json").write_text(json.dumps(index))
    parsed = Parsed(render(read_contents(copy)))
    assert len(parsed.scripts) == 2 and "wudi $\\frac{" + HOSTILE in json.loads(parsed.scripts[0])["models"]
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]


def test_nothing_is_fetched(page: str, parsed: Parsed) -> None:
    addresses = [value for name in ("src", "href", "srcset", "action", "poster") for value in parsed.attributes(name)]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style + parsed.scripts[1]


def test_every_picture_says_what_it_shows(parsed: Parsed) -> None:
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len([image for image in images if (image["src"] or "").startswith("data:image/svg")]) == 11
    assert all("alt" in image and image["width"] and image["height"] for image in images)
    assert all(image["alt"] for image in images if image.get("class") != "tiny")


def test_the_same_folder_gives_the_same_page(recipe_run: Path, page: str) -> None:
    assert render(read_contents(recipe_run)) == page


def test_files_stay_small_enough_to_send(page: str) -> None:
    assert len(page) < 4_000_000


def no_models(folder: Path) -> None:
    edit_index(folder, lambda index: index.update(models=[], stages=[]))


def nothing_evaluated(folder: Path) -> None:
    for path in folder.glob("stages/evaluate-*"):
        shutil.rmtree(path)
    edit_index(folder, lambda index: [stage.update(state="waiting", seconds=None) for stage in index["stages"]])


def ungraded(folder: Path) -> None:
    for path in folder.glob("stages/evaluate-*/scores.json"):
        path.unlink()


def one_evaluation_less(folder: Path) -> None:
    (folder / "stages/evaluate-amm-seed1-0011aabb/scores.json").unlink()


def only_the_base(folder: Path) -> None:
    edit_index(folder, lambda index: index.update(models=[m for m in index["models"] if m["name"] == "base"]))


def asked_in_two_ways(folder: Path) -> None:
    for path in folder.glob("stages/evaluate-amm-*/evaluation.json"):
        record = json.loads(path.read_text())
        record["config"]["sampling"] |= {"temperature": 1.0, "num_samples": 4}
        path.write_text(json.dumps(record))


def one_seed(folder: Path) -> None:
    edit_index(folder, lambda index: index.update(models=[m for m in index["models"] if m["seed"] == 0]))


def no_sweep(folder: Path) -> None:
    edit_index(folder, lambda index: index.update(models=[m for m in index["models"] if "boost" not in m["name"]]))


def without_merges_and_images(folder: Path) -> None:
    shutil.rmtree(folder / "stages" / ".images")
    for path in [*folder.glob("stages/merge-*/*/merge.json"), *folder.glob("stages/*/samples/images/*")]:
        path.unlink()


def torn(folder: Path) -> None:
    """Files as a kill leaves them, and one that was damaged."""
    for path in folder.glob("stages/train-*/metrics.jsonl"):
        path.write_bytes(path.read_bytes()[:-20])
    next(folder.glob("stages/evaluate-wudi-*/miniature_ocr/items.jsonl")).write_text("{\n")
    next(folder.glob("stages/train-math-*/samples/step_000001.json")).write_text("{")
    (folder / "stages/train-math_dapo-seed0-0011aabb/config.yaml").unlink()


UNFINISHED: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "no models": (no_models, "No model is evaluated yet."),
    "nothing evaluated": (nothing_evaluated, "of 54 stages 54 waiting"),
    "ungraded": (ungraded, "Not evaluated yet: base, math, structure, ocr, math_grpo"),
    "one evaluation less": (one_evaluation_less, "Not evaluated yet: amm (seed 1)."),
    "only the base": (only_the_base, "The AMM merge is not evaluated beside another model yet."),
    "one seed": (one_seed, "One seed: intervals are over items alone"),
    "no sweep": (no_sweep, "No sweep over boost is evaluated"),
    "without merges and images": (without_merges_and_images, "No merge has left a merge.json that can be read."),
    "asked in two ways": (asked_in_two_ways, "not all asked in the same way: greedy, at most 2048 tokens; 4 sampled"),
    "torn": (torn, "wudi, seed 0: left out, its evaluation cannot be read"),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_what_is_missing_is_said(name: str, recipe_run: Path, tmp_path: Path) -> None:
    change, said = UNFINISHED[name]
    copy = shutil.copytree(recipe_run, tmp_path / "run")
    change(copy)
    text = Parsed(write_report(copy).path.read_text()).text
    assert said in " ".join(text.split())
    assert "Traceback" not in text and "None" not in text and "nan" not in text.split()


def test_seeds_that_are_not_shared_are_left_out_of_a_difference(recipe_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(recipe_run, tmp_path / "run")
    edit_index(
        copy,
        lambda index: index.update(models=[m for m in index["models"] if (m["name"], m["seed"]) != ("wudi", 0)]),
    )
    row = read_contents(copy).findings.merge("amm", "wudi")
    assert row is not None and row.seeds == (1,)
    assert row.accuracies == pytest.approx(((13 + 11 + 16) / 60, (12 + 11 + 16) / 60))


def test_items_that_were_not_asked_are_wrong_and_have_no_tokens() -> None:
    items = tuple(StoredItem(BenchmarkItem(str(place), "?", "1"), "?") for place in range(4))
    answers = (
        StoredAnswer("mme", "0", 0, "1", 10, "stop", 5.0, 6.0, correct=True),
        StoredAnswer("mme", "0", 1, "2", 20, "stop", 5.0, 6.0),
        StoredAnswer("mme", "1", 0, "", 0, "not asked", 0.0, 0.0, failure="unreadable image"),
        StoredAnswer("mme", "9", 0, "1", 99, "stop", 5.0, 6.0, correct=True),
    )
    outcome = outcome_of({0: Answered(items, ("a", "a", "b", "b"), answers, 12.5, True, Path())})
    assert outcome.correct_SN.tolist() == [[0.5, 0.0, 0.0, 0.0]] and outcome.first_SN.tolist() == [[True] + 3 * [False]]
    assert outcome.tokens == 15.0 and np.isnan(outcome.tokens_SN[0, 1:]).all() and outcome.accuracy == 0.125


def test_the_command_prints_a_table_and_the_path(
    recipe_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(recipe_run, tmp_path / "run")
    assert main(["report", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"report: {run / 'report.html'}" and (run / "report.html").is_file()
    assert any(line.startswith("AMM ") and "64.2" in line and "27.5" in line for line in lines)
    assert "holds: On math, LIPO's answers are shorter than GRPO's" in lines


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"name": "a"}', '{"name": "a", "stages": [], "models": [1]}']
)
def test_a_folder_without_an_index_is_one_line(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "recipe.json").write_text(content)
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "recipe.json" in said.err
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(RunFolderError):
        read_contents(tmp_path)
