"""Damaged files of a recipe are left out with a note or refused in one line; what is missing never counts as wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from report_cases import BENCHMARKS, CASES, write_recipe
from report_edits import NESTED, Damage, json_file, line, raw_line, repeated, text
from report_page import Parsed

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.report import page
from tinyr1v_ray.report.contents import Contents, read_contents

pytestmark = pytest.mark.slow

AMM = "stages/evaluate-amm-seed1-0011aabb"
ANSWERS = f"{AMM}/miniature_math/answers.jsonl"
ITEMS = f"{AMM}/miniature_math/items.jsonl"
TRAINING = "stages/train-math-seed0-0011aabb"
SAMPLE = f"{TRAINING}/samples/step_000001.json"
MERGE = "stages/merge-all-seed0-0011aabb/amm/merge.json"
METRICS = "stages/train-math-seed1-0011aabb/metrics.jsonl"
GROUPS = "stages/train-math-seed1-0011aabb/groups.jsonl"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cases = [case for case in CASES if case.name in ("base", "math", "math_grpo", "amm")]
    return write_recipe(tmp_path_factory.mktemp("damaged") / "run", cases)


@pytest.fixture(scope="module")
def before(sound: Path) -> Contents:
    return read_contents(sound)


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "run")


def one_less(run: Path) -> None:
    lines = (run / ANSWERS).read_text().splitlines(keepends=True)
    (run / ANSWERS).write_text("".join(lines[:-1]))


def all_empty(run: Path) -> None:
    for path in (run / AMM).glob("*/answers.jsonl"):
        path.write_text("")


LOST: Mapping[str, tuple[Damage, str, set[str]]] = {
    "all answers": (all_empty, "amm, seed 1: left out, 0 of 60 answers are stored", set()),
    "of one benchmark": (
        text(ANSWERS, ""),
        "amm, seed 1: miniature:math is left out, 0 of 20 answers are stored",
        set(BENCHMARKS[1:]),
    ),
    "one answer": (
        one_less,
        "amm, seed 1: miniature:math is left out, 19 of 20 answers are stored",
        set(BENCHMARKS[1:]),
    ),
    "further samples": (
        line(ANSWERS, lambda row: row.update(sample=1)),
        "amm, seed 1: miniature:math is left out, 20 of 40 answers are stored",
        set(BENCHMARKS[1:]),
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_lost_answers_are_not_wrong(name: str, run: Path) -> None:
    damage, said, kept = LOST[name]
    damage(run)
    contents = read_contents(run)
    amm = contents.outcomes.of_paper("amm")
    assert said in contents.notes and amm is not None
    assert {benchmark for benchmark, outcome in amm.outcomes.items() if 1 in outcome.seeds} == kept
    assert amm.outcomes["miniature:math"].seeds == (0,)
    assert amm.outcomes["miniature:math"].accuracy == pytest.approx(12 / 20)


def test_a_report_of_lost_answers_alone_has_no_metric(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in run.glob("stages/evaluate-*/*/answers.jsonl"):
        path.write_text("")
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr().out
    assert "0.0" not in said and "holds" not in said and said.count("left out, 0 of 60 answers are stored") == 8


UNREAD = {
    "a record of null": text(f"{AMM}/evaluation.json", "null"),
    "a nested record": text(f"{AMM}/evaluation.json", NESTED),
    "settings in a list": json_file(f"{AMM}/evaluation.json", lambda tree: tree.update(config=[])),
    "own benchmarks in a list": json_file(f"{AMM}/evaluation.json", lambda tree: tree["config"].update(user=[1])),
    "own benchmarks of numbers": json_file(f"{AMM}/evaluation.json", lambda tree: tree["config"].update(user={"a": 1})),
    "benchmarks of numbers": json_file(f"{AMM}/evaluation.json", lambda tree: tree.update(benchmarks=[1, 2])),
    "no benchmarks": json_file(f"{AMM}/evaluation.json", lambda tree: tree.pop("benchmarks") and None),
    "a verdict in words": line(ANSWERS, lambda row: row.update(correct="no")),
    "a text that is a number": line(ANSWERS, lambda row: row.update(text=1)),
    "a huge sample": line(ANSWERS, lambda row: row.update(sample=999_999_999_999)),
    "a sample below zero": line(ANSWERS, lambda row: row.update(sample=-1)),
    "tokens of 400 digits": line(ANSWERS, lambda row: row.update(num_tokens=10**400)),
    "tokens in words": line(ANSWERS, lambda row: row.update(num_tokens="7")),
    "endless seconds": line(ANSWERS, lambda row: row.update(finished_s=float("inf"))),
    "an answer of null": raw_line(ANSWERS, "null"),
    "a nested answer": raw_line(ANSWERS, NESTED),
    "an answer to another item": line(ANSWERS, lambda row: row.update(prompt_id="another")),
    "answers said twice": repeated(ANSWERS),
    "items said twice": repeated(ITEMS),
    "no items": text(ITEMS, ""),
    "an index that is a list": line(ITEMS, lambda row: row["item"].update(index=[])),
    "an image without facts": line(ITEMS, lambda row: row["item"].update(images=[{}])),
    "options in one word": line(ITEMS, lambda row: row["item"].update(options="a")),
    "columns of numbers": line(ITEMS, lambda row: row["item"].update(columns={"a": 1})),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_damaged_evaluation_is_left_out(name: str, run: Path) -> None:
    UNREAD[name](run)
    contents = read_contents(run)
    [note] = [
        note for note in contents.notes if note.startswith("amm, seed 1: left out, its evaluation cannot be read")
    ]
    assert len(note.splitlines()) == 1 and len(note) < 600
    amm = contents.outcomes.of_paper("amm")
    assert amm is not None and amm.seeds == (0,)


def test_settings_that_cannot_be_read_are_another_way_of_asking(run: Path) -> None:
    json_file(f"{AMM}/evaluation.json", lambda tree: tree["config"].update(sampling=[1]))(run)
    notes = " ".join(read_contents(run).notes)
    assert "not all asked in the same way: greedy, at most 2048 tokens; in a way that its record does not tell" in notes


ROWS = {
    "a reward in words": (line(METRICS, lambda row: row.update(reward_mean="y")), "metrics"),
    "a reward of 400 digits": (line(METRICS, lambda row: row.update(reward_mean=10**400)), "metrics"),
    "an endless second": (line(METRICS, lambda row: row.update(seconds_learn=float("inf"))), "metrics"),
    "no step": (line(METRICS, lambda row: row.pop("step") and None), "metrics"),
    "a nested row": (raw_line(METRICS, NESTED), "metrics"),
    "a row that is a list": (raw_line(METRICS, "[]"), "metrics"),
    "a group of nothing": (raw_line(GROUPS, '{"step": 1}'), "groups"),
    "a group with verdicts in words": (line(GROUPS, lambda row: row.update(correct=["no"] * 4)), "groups"),
    "a group with a length too few": (line(GROUPS, lambda row: row["lengths"].pop() and None), "groups"),
    "a group with endless advantages": (line(GROUPS, lambda row: row.update(advantages=[float("inf")] * 4)), "groups"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_damaged_row_of_a_training_is_left_out(name: str, run: Path) -> None:
    damage, file = ROWS[name]
    damage(run)
    contents = read_contents(run)
    number = {"metrics": 6, "groups": 12}[file]
    assert f"math, seed 1: 1 of {number} rows of {file}.jsonl are left out, they are broken" in contents.notes
    [lipo] = [curve for curve in contents.curves["math"]["reward_mean"] if curve.algorithm == "lipo"]
    assert lipo.num_seeds == 2 and lipo.steps.tolist() == ([1, 2, 4, 5, 6] if file == "metrics" else [1, 2, 3, 4, 5, 6])
    assert contents.preferences["math"].num_pairs == (72 if file == "metrics" else 69)


def test_a_training_that_cannot_be_opened_is_left_out(run: Path) -> None:
    (run / METRICS).unlink()
    (run / METRICS).mkdir()
    contents = read_contents(run)
    assert any(note.startswith("math, seed 1: metrics.jsonl is left out, it cannot be read") for note in contents.notes)
    assert [training.entry.seed for training in contents.trainings if training.entry.name == "math"] == [0]


BESIDE: Mapping[str, tuple[Damage, str]] = {
    "nested samples": (text(SAMPLE, NESTED), "math, seed 0: samples/step_000001.json"),
    "samples of null": (json_file(SAMPLE, lambda tree: tree.update(groups=[None])), "math, seed 0: samples/"),
    "an endless step": (json_file(SAMPLE, lambda tree: tree.update(step=float("inf"))), "math, seed 0: samples/"),
    "nested settings": (text(f"{TRAINING}/config.yaml", NESTED[:3000]), "math, seed 0: config.yaml"),
    "settings of the recipe": (lambda run: (run / "config.yaml").write_bytes(b"\xff") and None, "config.yaml"),
    "packages in a list": (text(f"{TRAINING}/environment.json", '{"packages": [1]}'), "math, seed 0: environment.json"),
    "a nested environment": (text(f"{TRAINING}/environment.json", NESTED), "math, seed 0: environment.json"),
    "a nested merge": (text(MERGE, NESTED), "amm, seed 0: merge.json"),
    "a merge of numbers": (text(MERGE, '{"tensors": [1], "experts": [2]}'), "amm, seed 0: merge.json"),
    "endless norms": (
        json_file(MERGE, lambda tree: tree["tensors"][0].update(delta_norms=[float("inf")] * 3)),
        "amm, seed 0: merge.json",
    ),
    "too few experts": (json_file(MERGE, lambda tree: tree["experts"].pop() and None), "amm, seed 0: merge.json"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_damage_beside_the_metrics_is_said_and_changes_none(name: str, before: Contents, run: Path) -> None:
    damage, said = BESIDE[name]
    damage(run)
    after = read_contents(run)
    assert [(row.model.name, row.accuracy, row.score) for row in after.rows] == [
        (row.model.name, row.accuracy, row.score) for row in before.rows
    ]
    assert [claim.verdict for claim in after.claims] == [claim.verdict for claim in before.claims]
    [note] = [note for note in after.notes if "left out" in note]
    assert note.startswith(said) and "is left out, it cannot be read (" in note and len(note.splitlines()) == 1


REFUSED = {
    "seconds that are no number": json_file("recipe.json", lambda tree: tree["stages"][0].update(seconds=float("nan"))),
    "endless seconds": json_file("recipe.json", lambda tree: tree["stages"][0].update(seconds=float("inf"))),
    "an endless seed": json_file("recipe.json", lambda tree: tree["models"][0].update(seed=float("inf"))),
    "an endless seed of a stage": json_file("recipe.json", lambda tree: tree["stages"][0].update(seed=float("inf"))),
    "a seed in words": json_file("recipe.json", lambda tree: tree["models"][0].update(seed="one")),
    "a boost of 400 digits": json_file("recipe.json", lambda tree: tree["models"][0].update(boost=10**400)),
    "domains in one word": json_file("recipe.json", lambda tree: tree["models"][0].update(domains="math")),
    "a folder that is a number": json_file("recipe.json", lambda tree: tree["stages"][0].update(folder=1)),
    "a folder with a zero byte": json_file("recipe.json", lambda tree: tree["models"][0].update(folder="a\0")),
    "a nested index": text("recipe.json", NESTED),
    "nested models": lambda run: text("recipe.json", '{"name": "a", "stages": [], "models": ' + NESTED)(run),
    "half a letter": lambda run: (run / "recipe.json").write_bytes(b"\xff") and None,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_damaged_index_is_one_line(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    REFUSED[name](run)
    assert main(["report", str(run)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "recipe.json is broken" in said.err
    assert len(said.err) < 1000 and not (run / "report.html").exists()


def test_half_a_surrogate_pair_is_shown_as_its_escape(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = json.loads((run / "recipe.json").read_text())
    index["name"] = "name \ud800"
    for model in index["models"]:
        model["name"] += "\udfff" if model["name"] == "amm" else ""
    (run / "recipe.json").write_text(json.dumps(index))
    for path in run.glob("stages/evaluate-*/*/answers.jsonl"):
        rows = [json.loads(row) for row in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row | {"text": "said \ud83d"}) + "\n" for row in rows))
    assert main(["report", str(run)]) == 0
    parsed = Parsed((run / "report.html").read_text(encoding="utf-8"))
    assert "name \\ud800" in parsed.text and "said \\ud83d" in parsed.text
    assert "amm\\udfff" in json.loads(parsed.scripts[0])["models"]


def test_a_folder_in_the_reports_place_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").mkdir()
    assert main(["report", str(run)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "report.html cannot be written" in said.err
    assert sorted(path.name for path in run.iterdir()) == sorted(["recipe.json", "report.html", "stages"])


def test_a_folder_that_may_not_be_written_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal is made up: the user of the tests may be one whom no folder refuses."""

    def refuse(path: Path, content: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(page, "replace_file", refuse)
    assert main(["report", str(run)]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and "report.html cannot be written: Permission denied" in said.err


def test_a_sound_folder_has_no_note_of_damage(before: Contents) -> None:
    assert not [note for note in before.notes if "left out" in note]
