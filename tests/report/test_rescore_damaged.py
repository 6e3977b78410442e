"""A damaged folder of an evaluation is one line when it is scored again, and stays as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_cases import CASES, write_evaluation
from report_edits import NESTED, json_file, line, raw_line, repeated, text

from tinyr1v_ray.cli.main import main

pytestmark = pytest.mark.slow

ANSWERS, ITEMS, RECORD = "miniature_math/answers.jsonl", "miniature_math/items.jsonl", "evaluation.json"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rescore") / "evaluation"
    write_evaluation(folder, CASES[0], 0)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "evaluation")


DAMAGES = {
    "a record of null": text(RECORD, "null"),
    "a nested record": text(RECORD, NESTED),
    "half a letter": lambda folder: (folder / RECORD).write_bytes(b"\xff") and None,
    "settings in a list": json_file(RECORD, lambda tree: tree.update(config=[])),
    "own benchmarks in a list": json_file(RECORD, lambda tree: tree["config"].update(user=[1])),
    "no items": text(ITEMS, ""),
    "items said twice": repeated(ITEMS),
    "an index that is a list": line(ITEMS, lambda row: row["item"].update(index=[])),
    "an image without facts": line(ITEMS, lambda row: row["item"].update(images=[{}])),
    "an answer of null": raw_line(ANSWERS, "null"),
    "a nested answer": raw_line(ANSWERS, NESTED),
    "an answer without a text": line(ANSWERS, lambda row: row.pop("text") and None),
    "a text that is a number": line(ANSWERS, lambda row: row.update(text=1)),
    "a huge sample": line(ANSWERS, lambda row: row.update(sample=999_999_999_999)),
    "a sample below zero": line(ANSWERS, lambda row: row.update(sample=-1)),
    "endless seconds": line(ANSWERS, lambda row: row.update(finished_s=float("inf"))),
    "an answer to nobody": line(ANSWERS, lambda row: row.update(prompt_id="nobody")),
    "an answer of null in the last benchmark": raw_line("miniature_ocr/answers.jsonl", "null"),
    "answers said twice": repeated(ANSWERS),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_one_line(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGES[name](folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["evaluate", "--rescore", str(folder)]) == 2
    said = [row for row in capsys.readouterr().err.splitlines() if row.startswith("tinyr1v: ")]
    assert len(said) == 1 and str(folder) in said[0] and len(said[0]) < 600
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_sound_one_is_scored_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--rescore", str(folder)]) == 0
    assert "miniature:math" in capsys.readouterr().out
