"""`tinyr1v verify` of a recipe: a line a stage, and the stage is named where one breaks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import xxhash
from recorded_run import edit, record_run
from safetensors.numpy import load_file, save_file

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.registry import find_benchmark
from tinyr1v_ray.evaluation.benchmarks.scores import benchmark_scores
from tinyr1v_ray.evaluation.benchmarks.stored import StoredAnswer, StoredItem, write_answers, write_items
from tinyr1v_ray.jobs.evaluate.folder import open_output

NAME = "miniature:ocr"


def write_merged(folder: Path) -> None:
    folder.mkdir(parents=True)
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.full(5, 2.5, np.float32)}
    save_file(tensors, folder / "model.safetensors")
    rows = [{"stored_name": name, "xxh3_128": xxhash.xxh3_128_hexdigest(of.tobytes())} for name, of in tensors.items()]
    (folder / "merge.json").write_text(json.dumps({"tensors": rows}))


def write_evaluation(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    benchmark = find_benchmark(NAME, {})
    config = parse_settings(EvaluateConfig, {"benchmarks": [NAME], "model": {"path": "miniature"}})
    open_output(config, folder, [benchmark], folder)
    items = [StoredItem(BenchmarkItem(str(n), "?", "7"), "?") for n in range(4)]
    answers = [StoredAnswer(NAME, str(n), 0, "7", 3, "stop", 0.0, 1.0, reward=1.0, correct=n > 0) for n in range(4)]
    write_items(folder / "miniature_ocr", items)
    write_answers(folder / "miniature_ocr", answers)
    scores = benchmark_scores(benchmark, items, answers)
    (folder / "scores.json").write_text(json.dumps({"benchmarks": {NAME: asdict(scores)}}))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    record_run(tmp_path / "stages" / "train")
    for name in ("amm", "average"):
        write_merged(tmp_path / "stages" / "merge" / name)
    write_evaluation(tmp_path / "stages" / "evaluate")
    states = {"train": "done", "merge": "done", "evaluate": "done", "later": "waiting"}
    stages = [
        {"id": f"{name}/x/seed0", "kind": name, "name": "x", "folder": f"stages/{name}", "state": state}
        for name, state in states.items()
    ]
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "r", "stages": stages, "models": []}))
    return tmp_path


def test_a_sound_recipe_has_a_line_a_stage(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(recipe)]) == 0
    assert [line.partition("; ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "train/x/seed0: 18 groups of 6 steps, once each and in order (cursor 18)",
        "merge/x/seed0: 4 tensors of 2 models have the bytes that were merged",
        "evaluate/x/seed0: 4 answers to 1 benchmarks give the scores",
        "later/x/seed0: waiting, not checked",
    ]


def change_weights(recipe: Path) -> None:
    path = recipe / "stages" / "merge" / "average" / "model.safetensors"
    save_file({**load_file(path), "b": np.full(5, 2.25, np.float32)}, path)


def lose_answer(recipe: Path) -> None:
    path = recipe / "stages" / "evaluate" / "miniature_ocr" / "answers.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            lambda recipe: edit(recipe / "stages/train/groups.jsonl", 3, step=9),
            "train/x/seed0: line 3 of groups.jsonl h",
        ),
        (change_weights, "merge/x/seed0: b of average has other bytes than merge.json"),
        (lambda recipe: (recipe / "stages/merge/amm/model.safetensors").unlink(), "merge/x/seed0: a of amm is missing"),
        (lose_answer, "evaluate/x/seed0: evaluate: miniature:ocr is left out, 3 of 4 answers are stored"),
        (
            lambda recipe: edit(recipe / "stages/evaluate/miniature_ocr/answers.jsonl", 2, correct=False),
            "evaluate/x/seed0: scores.json has score 75.0 of miniature:ocr where its answers give 50",
        ),
        (
            lambda recipe: (recipe / "stages/evaluate/scores.json").write_text("{}"),
            "evaluate/x/seed0: .* cannot be read",
        ),
    ],
)
def test_the_stage_that_breaks_is_named(
    damage: Callable[[Path], None], named: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(recipe)
    assert main(["verify", str(recipe)]) == 1
    said = capsys.readouterr().err
    assert re.match(f"tinyr1v: {named}", said) and said.count("\n") == 1
