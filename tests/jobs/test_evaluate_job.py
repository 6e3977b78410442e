"""A whole evaluation with the real Ray and vLLM on the miniature, what is in its way, and scores from its files."""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_cells import picture

from tinyr1v_ray.cli import evaluate
from tinyr1v_ray.config.base import load_settings, parse_settings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.errors import ConfigError, DataError, ModelError, PlacementError, RunFolderError
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS
from tinyr1v_ray.evaluation.benchmarks.stored import read_answers, read_items, write_answers
from tinyr1v_ray.jobs.evaluate import job as evaluation_job
from tinyr1v_ray.jobs.evaluate.folder import open_output, output_folder, prepare_folder
from tinyr1v_ray.jobs.evaluate.inputs import load_evaluation, named_benchmarks

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["model.max_length=384", "model.min_pixels=784", "model.max_pixels=200704", "progress=false"]
SMALL += ["engine.num_cpus=0.8", "cluster.num_cpus=2"]


def command(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    return parser.parse_args(["evaluate", *words])


def run(*words: str) -> int:
    return evaluate.run(command(*words))


def config(**settings: Any) -> EvaluateConfig:
    return parse_settings(EvaluateConfig, {"benchmarks": ["mme"], "sampling": {"max_tokens": 48}, **settings}, SMALL)


def write_mme(folder: Path) -> None:
    """Four images with a question each for yes and no; one broken image, one item without a key, one endless prompt."""
    rows = [["index", "image", "question", "answer", "category", "image_path"]]
    for number in range(8):
        shade = str(number - 1) if number % 2 else picture(10 * number, 56)
        answer = ("Yes", "No")[number % 2]
        rows.append(
            [str(number), shade, f"Is it {number}?", answer, ("color", "OCR")[number // 4], f"{number // 2}.png"]
        )
    rows.append(["8", "broken!!" * 20, "Is it 8?", "Yes", "color", "8.png"])
    rows.append(["9", picture(1, 56), "Is it 9?", "", "color", "8.png"])
    rows.append(["10", picture(2, 56), "word " * 20_000, "Yes", "color", "10.png"])
    with (folder / "MME.tsv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL).writerows(rows)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One evaluation, sampled twice, of an embedded pool and a table with everything that may be wrong with one."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_mme(folder)
    words = ["--model", "miniature", "--benchmarks", "miniature:ocr,mme", "--data", str(folder), "--limit", "11"]
    words += ["--output", str(folder / "out"), "--samples", "2", "--temperature", "1", "--max-tokens", "48"]
    assert run(*words, *SMALL) == 0
    return folder / "out"


def scores(output: Path) -> dict[str, Any]:
    return json.loads((output / "scores.json").read_text())


def test_every_answer_is_stored_and_counted(output: Path) -> None:
    ocr = read_answers(output / "miniature_ocr")
    assert [(row.prompt_id, row.sample) for row in ocr] == [
        (stored.item.index, sample) for stored in read_items(output / "miniature_ocr") for sample in (0, 1)
    ]
    assert len(ocr) == 22 and all(row.num_tokens and row.finished_s > row.started_s for row in ocr)
    read = scores(output)["benchmarks"]["miniature:ocr"]
    assert read["accuracy"][0] == sum(row.correct for row in ocr) / 22
    assert 0.3 < read["accuracy"][0] <= 1.0  # the shipped base reads most numbers
    assert all(row.extracted == row.reference for row in ocr if row.correct)
    assert read["speed"]["tokens"] == sum(row.num_tokens for row in ocr)
    right = sum(row.correct for row in ocr)
    assert read["speed"]["tokens_per_correct"] == pytest.approx(sum(row.num_tokens for row in ocr) / right)
    assert read["speed"]["tokens_per_s"] > 0 and read["speed"]["latency_p95_s"] > 0
    assert len({row.text for row in ocr}) > 11  # two draws of an item differ now and then


def test_what_cannot_be_scored_is_named_and_never_right(output: Path) -> None:
    read = scores(output)["benchmarks"]["mme"]
    assert read["counts"]["items"] == 11 and read["counts"]["unscorable"] == 6
    named = {first for of in read["counts"]["by_reason"].values() for first in of["first"]}
    assert named == {"8", "9", "10"}
    reasons = " | ".join(read["counts"]["by_reason"])
    assert "broken base64" in reasons and "answer key is empty" in reasons and "longer than" in reasons
    assert not any(row.correct for row in read_answers(output / "mme") if row.prompt_id in named)
    assert set(read["parts"]) == {"total", "perception", "cognition", "color", "OCR"}


def test_scores_follow_from_the_stored_answers_alone(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every grade is wiped; rescoring brings back the same file."""
    before = (output / "scores.json").read_bytes()
    for name in ("miniature_ocr", "mme"):
        answers = read_answers(output / name)
        write_answers(output / name, [replace(row, correct=False, reward=0.0, extracted="") for row in answers])
    (output / "scores.json").unlink()
    assert run("--rescore", str(output)) == 0
    assert (output / "scores.json").read_bytes() == before
    shown = capsys.readouterr().out
    assert "miniature:ocr" in shown and "average of 2 (not the paper's ten)" in shown
    assert "answer key is empty (first: ['9'])" in shown


def test_going_on_asks_for_nothing_that_is_there(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torn line and a missing sample are taken back; what is whole stays; another way of asking is refused."""
    settings = json.loads((output / "evaluation.json").read_text())["config"]
    before = parse_settings(EvaluateConfig, settings)
    inputs = load_evaluation(before, named_benchmarks(before), output)
    path = output / "miniature_ocr" / "answers.jsonl"
    content = path.read_bytes()
    try:
        path.write_bytes(content + b'{"domain": "minia')
        _, done = prepare_folder(output, "miniature:ocr", inputs.items["miniature:ocr"], 2)
        assert len(done) == 11 and path.read_bytes() == content
        lines = content.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[1:]))
        _, done = prepare_folder(output, "miniature:ocr", inputs.items["miniature:ocr"], 2)
        assert len(done) == 10 and path.read_bytes() == b"".join(lines[2:])
    finally:
        path.write_bytes(content)
    monkeypatch.setattr(evaluation_job, "start_engines", None)  # nothing is to be asked, so no engine is started
    assert evaluation_job.run_evaluation(before).scores[0].counts.answers == 22
    other = parse_settings(EvaluateConfig, settings, ["sampling.seed=1"])
    with pytest.raises(RunFolderError, match="another sampling"):
        open_output(other, inputs.model_folder, named_benchmarks(other), output)


def test_groups_are_never_torn_by_a_limit(tmp_path: Path) -> None:
    write_mme(tmp_path)

    def groups(num_items: int) -> dict[str, list[str]]:
        settings = config(num_items=num_items, data=str(tmp_path), output=str(tmp_path / "out"))
        found: dict[str, list[str]] = defaultdict(list)
        for stored in load_evaluation(settings, named_benchmarks(settings), tmp_path / "out").items["mme"]:
            found[TEN_BENCHMARKS["mme"].group(stored.item)].append(stored.item.index)
        return found

    whole, kept = groups(0), groups(4)
    assert sorted(map(len, whole.values())) == [1, 2, 2, 2, 2, 2] and 0 < len(kept) < len(whole)
    assert sum(map(len, kept.values())) >= 4 and all(whole[name] == items for name, items in kept.items())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--benchmarks", "mathvisto"], ConfigError, "did you mean mathvista"),
        (["--benchmarks", "mathvista"], DataError, "MathVista_MINI.tsv"),
        ([], ConfigError, "benchmarks is empty"),
        (["--benchmarks", "mme", "--samples", "4"], ConfigError, "greedy answers are all the same"),
        (["--benchmarks", "mme", "--max-tokens", "384"], ConfigError, "no room for a prompt"),
        (["--benchmarks", "mme", "--judge-url", "http://x/v1"], ConfigError, "judge has both"),
        (["--benchmarks", "mme", "--judge-url", "x", "--judge-model", "m"], ConfigError, "it is the http"),
        (["--benchmarks", "miniature:ocr", "--model", "/nowhere"], ModelError, "nowhere"),
        (["user.own={file: own.tsv, metric: mathe}", "--benchmarks", "own"], ConfigError, "did you mean math"),
        (["--rescore", "/nowhere"], RunFolderError, "name such a folder"),
        (["--rescore", "/nowhere", "--samples", "2"], ConfigError, "--rescore comes with other settings"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [] if "--rescore" in words else ["--data", str(tmp_path), "--output", str(tmp_path / "out"), *SMALL]
    if not {"--max-tokens", "--rescore"} & set(words):
        flags += ["sampling.max_tokens=48"]
    overrides = [word for word in words + flags if "=" in word]
    with pytest.raises(error, match=re.escape(message)) as caught:
        run(*overrides, *(word for word in words + flags if "=" not in word))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "file"], "file cannot be written: .*file is no folder"),
        (["--output", "file/out"], "file/out cannot be written: .*file is no folder"),
        (["--output", "out", "cluster.address=127.0.0.1:1"], "nobody answers at 127.0.0.1:1"),
    ],
)
def test_an_output_or_address_that_cannot_be_used_leaves_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_mme(tmp_path)
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.iterdir())
    flags = ["--benchmarks", "mme", "--data", str(tmp_path), *words]
    overrides = [word for word in flags if "=" in word] + SMALL + ["sampling.max_tokens=48"]
    with pytest.raises((RunFolderError, PlacementError), match=message) as caught:
        run(*overrides, *(word for word in flags if "=" not in word))
    assert "\n" not in str(caught.value) and sorted(tmp_path.iterdir()) == before


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds something else"):
        open_output(config(), tmp_path, named_benchmarks(config()), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_users_benchmark_is_described_by_its_columns(tmp_path: Path) -> None:
    header, cells = ["index", "image", "ask", "key", "kind"], ["1", picture(3, 56), "How much?", "1/2", "hard"]
    with (tmp_path / "own.tsv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([header, cells])
    own = {
        "file": "own.tsv",
        "metric": "math",
        "question_column": "ask",
        "answer_column": "key",
        "category_column": "kind",
    }
    settings = config(benchmarks=["own"], user={"own": own}, data=str(tmp_path), question_template="Think. {question}")
    [benchmark] = named_benchmarks(settings)
    [stored] = load_evaluation(settings, [benchmark], tmp_path / "out").items["own"]
    assert (stored.asked, stored.item.answer, stored.item.category) == ("Think. How much?", "1/2", "hard")
    assert benchmark.grade(stored.item, "<answer>0.5</answer>").correct


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("evaluate_*.yaml")), ids=lambda path: path.name)
def test_the_configurations_are_read_and_planned(path: Path) -> None:
    settings = load_settings(EvaluateConfig, path)
    benchmarks = named_benchmarks(settings)
    assert len(benchmarks) == (10 if "ten" in path.name else 3)
    placement = evaluation_job.plan_engines(settings.engine)
    assert len(placement.actors) == settings.engine.num_engines
    assert all(actor.num_gpus == settings.engine.num_gpus for actor in placement.actors)


def test_the_default_folder_is_named_after_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for model, name in (("runs/ocr/export", "ocr-export"), ("miniature", "miniature"), ("Qwen/Q-3B", "Q-3B")):
        settings = config(model={"path": model})
        assert output_folder(settings) == tmp_path / "runs" / f"evaluate-{name}"
