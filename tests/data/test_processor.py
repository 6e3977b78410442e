"""Token counts and prompts against the real Qwen2.5-VL processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tinyr1v_ray.config.train import ModelSettings
from tinyr1v_ray.data.processor import PromptProcessor
from tinyr1v_ray.errors import DataError, ModelError
from tinyr1v_ray.types import ImageRef

IMAGE_TOKEN_ID = 261
"""256 bytes, then the sixth special token."""


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


SIDES = st.integers(1, 700)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=SIDES, height=SIDES)
def test_counts_are_what_the_processor_makes_of_the_pixels(processor: PromptProcessor, width: int, height: int) -> None:
    if max(width, height) > 200 * min(width, height):
        return
    outputs = processor.processor(text=["<|image_pad|>"], images=[noise(width, height)], return_tensors="pt")
    merged = processor.image_tokens(width, height).position_ids_AN.max(axis=1) + 1
    assert outputs["image_grid_thw"][0].tolist() == [1, 2 * merged[1], 2 * merged[2]]
    assert int((outputs["input_ids"] == IMAGE_TOKEN_ID).sum()) == processor.num_image_tokens(width, height)
    assert outputs["pixel_values"].shape[0] == 4 * processor.num_image_tokens(width, height)
    assert 4 <= outputs["pixel_values"].shape[0] <= 400


@pytest.mark.parametrize(
    ("limits", "num_tokens"), [((784, 784 * 100), 6), ((784, 784 * 4), 2), ((784 * 9, 784 * 16), 12)]
)
def test_pixel_limits_are_the_settings(model_folder: Path, limits: tuple[int, int], num_tokens: int) -> None:
    """84 x 56 pixels are 3 x 2 merged patches.

    At most 4: both sides shrink by sqrt(6/4) to 2.4 x 1.6, rounded down. At least 9: they grow by sqrt(9/6) to
    3.7 x 2.4, rounded up.
    """
    settings = ModelSettings(min_pixels=limits[0], max_pixels=limits[1])
    limited = PromptProcessor(model_folder, settings)
    count = limited.num_image_tokens(84, 56)
    assert int(limited.pixel_inputs([noise(84, 56)])["image_grid_thw"].prod()) == 4 * count
    assert count == num_tokens
    engine = limited.family.engine_arguments(settings, 3)
    assert engine["mm_processor_kwargs"] == {"size": {"shortest_edge": limits[0], "longest_edge": limits[1]}}
    assert engine["limit_mm_per_prompt"] == {"image": 3, "video": 0}


def test_pixel_inputs_of_several_images_are_those_of_each(processor: PromptProcessor) -> None:
    pictures = [noise(56, 56), noise(140, 28), noise(56, 56)]
    together = processor.pixel_inputs(pictures)
    alone = [processor.pixel_inputs([picture]) for picture in pictures]
    for name in ("pixel_values", "image_grid_thw"):
        assert torch.equal(together[name], torch.cat([inputs[name] for inputs in alone]))


def test_a_prompt_has_one_placeholder_an_image_and_expands_to_the_processors_ids(processor: PromptProcessor) -> None:
    sizes = [(140, 56), (28, 84)]
    text = processor.render("Compare <image> with <image>.", 2, system_prompt="Be brief.")
    token_ids = processor.encode(text, 2)
    references = tuple(
        ImageRef("", "", 0, width, height, processor.num_image_tokens(width, height)) for width, height in sizes
    )
    expected = processor.processor(text=[text], images=[noise(*size) for size in sizes])["input_ids"][0]
    assert token_ids.count(IMAGE_TOKEN_ID) == 2
    assert processor.expand(token_ids, references) == list(expected)
    assert processor.decode(token_ids).count("Be brief.") == 1


def test_images_stand_where_they_are_marked_else_in_front(processor: PromptProcessor) -> None:
    pad = "<|vision_start|><|image_pad|><|vision_end|>"
    assert f"{pad}{pad}What?" in processor.render("What?", 2)
    assert f"First {pad}, then {pad}{pad} what?" in processor.render("First <image>, then <image><image> what?", 3)
    assert "What?" in processor.render("What?", 0) and pad not in processor.render("What?", 0)


def test_the_templates_own_system_turn_stands_unless_another_is_given(processor: PromptProcessor) -> None:
    assert "Help." in processor.render("What?", 0) and "Help." not in processor.render("What?", 0, "Be brief.")


@pytest.mark.parametrize(("question", "num_images"), [("<image> and <image>", 1), ("<image>", 0)])
def test_marks_must_match_the_images(processor: PromptProcessor, question: str, num_images: int) -> None:
    with pytest.raises(DataError, match=f"and has {num_images}"):
        processor.render(question, num_images)


def test_a_question_cannot_smuggle_in_placeholders(processor: PromptProcessor) -> None:
    with pytest.raises(DataError, match="2 image placeholders for 1 images"):
        processor.encode(processor.render("What is <|image_pad|>?", 1), 1)


def test_every_end_token_counts(processor: PromptProcessor) -> None:
    names = processor.tokenizer.convert_ids_to_tokens(list(processor.eos_token_ids))
    assert names == ["<|im_end|>", "<|endoftext|>"]
    assert processor.tokenizer.convert_ids_to_tokens(processor.pad_token_id) == "<|endoftext|>"


def test_a_folder_without_template_or_processor_is_a_model_error(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((model_folder / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"cannot be loaded.*; it is a Qwen2\.5-VL's"):
        PromptProcessor(tmp_path, ModelSettings())
    for path in model_folder.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="no chat template"):
        PromptProcessor(tmp_path, ModelSettings())
