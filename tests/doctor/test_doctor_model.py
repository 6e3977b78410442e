"""`tinyr1v doctor --model`: held against transformers' own model and processor."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.models.tiny_families import WRITERS
from tinyr1v_ray.cli.main import main
from tinyr1v_ray.miniature.base import base_model_folder


def test_it_says_what_transformers_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters of the model, and image tokens of a real image of the size that is asked about."""
    assert main(["doctor", "--model", "miniature", "--image", "300x170", "max_pixels=30000"]) == 0
    said = capsys.readouterr().out
    folder = base_model_folder()
    model = AutoModelForImageTextToText.from_pretrained(folder)
    vision = sum(weight.numel() for weight in model.model.visual.parameters())
    assert f"Qwen2.5-VL, {model.num_parameters() / 1e6:.3g} M parameters" in said
    assert f"the vision part of {vision:,} left out" in said
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor.size = {"shortest_edge": 3136, "longest_edge": 30000}
    image = Image.fromarray(np.zeros((170, 300, 3), np.uint8))
    inputs = processor(images=[image], text=[processor.image_token])
    num_tokens = int((np.array(inputs["input_ids"]) == processor.image_token_id).sum())
    assert f"an image of 300x170 pixels costs {num_tokens} tokens" in said


def test_a_model_of_words_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WRITERS["Qwen3ForCausalLM"](tmp_path)
    assert main(["doctor", "--model", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "all parameters are trained" in said and "it reads text alone" in said and "pixels costs" not in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model", "/nowhere"], "model '/nowhere' is no folder"),
        (["--model", "miniature", "--config", "a.yaml"], "doctor got --model and --config"),
        (["--model", "miniature", "max_pixel=3"], "did you mean max_pixels"),
    ],
)
def test_bad_input_is_one_line(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert re.fullmatch(rf"tinyr1v: .*{re.escape(expected)}.*\n", capsys.readouterr().err)


@pytest.mark.parametrize("text", ["0x9", "12", "x", "-3x4"])
def test_a_size_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--model", "miniature", f"--image={text}"])
    assert "is no size" in capsys.readouterr().err
