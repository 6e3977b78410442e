"""A language model has no images anywhere: what is asked of it, what is refused, and a run from data to benchmark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_families import write_qwen3

from tinyr1v_ray.config.data import DataSettings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.chat import Turn
from tinyr1v_ray.data.model_folder import resolve_model_folder
from tinyr1v_ray.data.processor import PromptProcessor
from tinyr1v_ray.data.prompts import PromptTable, TableOptions, build_prompt_table
from tinyr1v_ray.errors import DataError, ModelError
from tinyr1v_ray.jobs.evaluate.inputs import load_evaluation, named_benchmarks
from tinyr1v_ray.jobs.train.inputs import load_inputs

Build = Callable[..., PromptTable]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3") / "base"
    write_qwen3(folder)
    return folder


@pytest.fixture(scope="module")
def processor(folder: Path) -> PromptProcessor:
    return PromptProcessor(folder, ModelSettings())


@pytest.fixture
def build(processor: PromptProcessor, tmp_path: Path) -> Build:
    """A table of rows, under these settings."""

    def made(rows: list[dict[str, Any]], **settings: Any) -> PromptTable:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = TableOptions(tmp_path / "images", tmp_path / "cache", 128)
        return build_prompt_table(DataSettings(train=(str(path),), **settings), "train", processor, options)

    return made


def test_its_folder_needs_no_image_processor(folder: Path, tmp_path: Path) -> None:
    assert resolve_model_folder(str(folder)) == folder
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        resolve_model_folder(str(other))


def test_its_template_takes_texts(processor: PromptProcessor) -> None:
    history = (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello"))
    assert processor.render("6 x 7?", 0, history=history) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\n6 x 7?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_data_without_an_image_column_needs_no_setting(build: Build, processor: PromptProcessor) -> None:
    table = build([{"question": "What is 6 x 7?", "answer": "42"}, {"question": "2 + 2?", "answer": "4"}])
    assert (len(table), table.max_images) == (2, 0)
    rendered = processor.render("What is 6 x 7?", 0)
    assert table[0].token_ids == tuple(processor.tokenizer(rendered)["input_ids"])


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"image": "p.png"}, {}, r"an image of 28 x 28 pixels for a Qwen3.*; name a model that reads images, or items"),
        ({"pictures": ["p.png"]}, {}, r"has no column 'image' but one named 'pictures'"),
        ({"question": [{"role": "user", "content": [{"image": "p.png", "type": "image"}, "What?"]}]},
         {"image_column": ""}, r"an image of 28 x 28 pixels for a Qwen3"),
        ({"question": "What is in <image>?"}, {}, r"the question marks 1 images and has 0"),
    ],
)  # fmt: skip
def test_data_with_images_is_refused_in_one_line(
    build: Build, tmp_path: Path, row: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    Image.new("RGB", (28, 28), (90, 20, 40)).save(tmp_path / "p.png")
    with pytest.raises(DataError, match=message) as refused:
        build([{"question": "What?", "answer": "1", **row}], **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("train_vision", [True, False])
def test_words_alone_for_a_model_that_reads_images_are_said_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, train_vision: bool
) -> None:
    """They can be trained on; its tower cannot."""
    (tmp_path / "data.jsonl").write_text(json.dumps({"question": "What is 6 x 7?", "answer": "42"}) + "\n")
    tree = {
        "run": {"name": "words", "folder": str(tmp_path), "num_prompts_per_step": 1},
        "model": {"path": "miniature", "max_length": 256, "train_vision": train_vision},
        "data": {"train": [str(tmp_path / "data.jsonl")], "image_column": ""},
        "rollout": {"max_tokens": 32},
        "evaluation": {"num_items": 0},
    }
    load_inputs(TrainConfig.model_validate(tree))
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.partition(":")[0] for line in said] == ["no prompt has an image"] * train_vision
    assert all("set model.train_vision=false" in line and "\n" not in line for line in said)


def evaluation(folder: Path, tmp_path: Path, cells: str, **described: Any) -> EvaluateConfig:
    (tmp_path / "own.tsv").write_text(cells)
    user = {"own": {"file": "own.tsv", "metric": "exact", **described}}
    tree = {
        "model": {"path": str(folder), "max_length": 512}, "sampling": {"max_tokens": 64},
        "benchmarks": ["own"], "user": user, "data": str(tmp_path),
    }  # fmt: skip
    return EvaluateConfig.model_validate(tree)


def test_a_benchmark_in_words_is_asked_and_one_with_images_refused(folder: Path, tmp_path: Path) -> None:
    config = evaluation(folder, tmp_path, "index\tquestion\tanswer\n1\t6 x 7?\t42\n", images=False)
    inputs = load_evaluation(config, named_benchmarks(config), tmp_path / "out")
    assert inputs.prompts["own"]["1"].images == () and not inputs.items["own"][0].item.failure
    Image.new("RGB", (28, 28), (90, 20, 40)).save(tmp_path / "p.png")
    config = evaluation(folder, tmp_path, "index\tquestion\tanswer\timage_path\n1\tWhat?\t4\tp.png\n")
    with pytest.raises(
        DataError, match=r"benchmark own shows images and .* is a Qwen3, which reads text alone; .*; lea"
    ):
        load_evaluation(config, named_benchmarks(config), tmp_path / "out")
