"""What a model is asked, and what the product says of each benchmark's official rule."""

from __future__ import annotations

import pytest

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS, find_benchmark
from tinyr1v_ray.evaluation.benchmarks.rules import described_rules


@pytest.mark.parametrize("benchmark", TEN_BENCHMARKS.values(), ids=lambda benchmark: benchmark.name)
def test_prompts_hold_question_and_options(benchmark: Benchmark) -> None:
    columns = {"choices": "['yes1', 'no2']", "image_path": "a", "answer_type": "float", "precision": "2"}
    item = BenchmarkItem("1", "What is it?", "A", {"A": "yes1", "B": "no2"}, "c", columns)
    asked = benchmark.prompt(item)
    assert "What is it?" in asked
    if benchmark.name in ("mathvista", "mathvision", "wemath", "mmstar", "ocr_reasoning"):
        assert "yes1" in asked and "no2" in asked and "letter" in asked


@pytest.mark.parametrize("benchmark", TEN_BENCHMARKS.values(), ids=lambda benchmark: benchmark.name)
def test_marks_of_pictures_are_no_words_of_the_question(benchmark: Benchmark) -> None:
    columns = {"choices": "['yes1', 'no2']", "image_path": "a", "answer_type": "integer"}
    item = BenchmarkItem(
        "1", "<image1>\nWhere does the ant <image2> go?\n<image 3>", "A", {"A": "x", "B": "y"}, "c", columns
    )
    asked = benchmark.prompt(item)
    assert "Where does the ant go?" in asked and "<image" not in asked


@pytest.mark.parametrize(
    ("language", "request_"),
    [("English", "this form: 'x dollars'"), ("", "this form: 'x dollars'"), ("Chinese", "形式")],
)
def test_ocr_reasoning_asks_for_the_items_format(language: str, request_: str) -> None:
    columns = {"question_type": "free_form", "answer_type": "float", "format": "'x dollars'", "language": language}
    asked = TEN_BENCHMARKS["ocr_reasoning"].prompt(BenchmarkItem("1", "How much?", "3", columns=columns))
    assert asked.startswith("How much?\n") and request_ in asked and "'x dollars'" in asked


def test_every_benchmark_of_the_paper_has_an_official_rule() -> None:
    for benchmark in TEN_BENCHMARKS.values():
        assert benchmark.rule is not None and "arXiv" in benchmark.rule.source
        assert benchmark.rule.metric and benchmark.rule.prompt and (benchmark.rule.lenient or benchmark.rule.strict)


def test_the_rules_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--rules", "--benchmarks", "wemath,miniature:ocr"]) == 0
    shown = capsys.readouterr().out
    assert "RM is its share of CM + RM" in " ".join(shown.split()) and "chartqa" not in shown
    assert "reward_ocr; no official rule" in shown
    assert main(["evaluate", "--rules"]) == 0
    assert all(f"\n{name}\n" in "\n" + shown for shown in [capsys.readouterr().out] for name in TEN_BENCHMARKS)
    assert described_rules([find_benchmark("mme", {})])[0] == "mme"


@pytest.mark.parametrize("also", [["num_items=3"], ["--model", "merged"], ["--rescore", "runs/evaluate"]])
def test_rules_are_not_printed_in_place_of_an_evaluation(also: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--rules", *also]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "--rules is given with other arguments" in said.err
