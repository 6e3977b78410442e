"""A family of the user's own (`toy_family.py`), registered by a setting: known everywhere, and trained for real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_family
from PIL import Image
from safetensors.torch import load_file

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.data.images import inspect_image, store_image
from tinyr1v_ray.data.model_folder import resolve_model_folder
from tinyr1v_ray.data.processor import PromptProcessor
from tinyr1v_ray.errors import ModelError
from tinyr1v_ray.learner import micro_batch as micro_batches
from tinyr1v_ray.learner.micro_batch import build_micro_batch
from tinyr1v_ray.learner.pixels import PixelCache
from tinyr1v_ray.learner.policy import PolicyModel, make_inputs
from tinyr1v_ray.learner.prompt_tokens import Layout
from tinyr1v_ray.models.loading import load_model
from tinyr1v_ray.planning.shapes import find_shape
from tinyr1v_ray.types import Completion, Finish, ImageRef, Prompt, TrainGroup, TrainRow

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CONFIG = str(Path(__file__).parents[2] / "configs" / "miniature_ocr_cpu.yaml")
FAMILY = "toy_family:Idefics3"
MAX_PIXELS = 112 * 112
SIZES = [(56, 56), (140, 28), (100, 100), (28, 90), (500, 300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_family.write_folder(tmp_path_factory.mktemp("idefics3"))


@pytest.fixture(scope="module")
def processor(folder: Path) -> PromptProcessor:
    return PromptProcessor(folder, ModelSettings(family=FAMILY, max_pixels=MAX_PIXELS, min_pixels=784))


def picture(width_px: int, height_px: int) -> Image.Image:
    pixels = np.random.default_rng(width_px).integers(0, 256, (height_px, width_px, 3), np.uint8)
    return Image.fromarray(pixels)


def test_it_is_known_where_the_setting_names_it_and_nowhere_else(folder: Path) -> None:
    assert resolve_model_folder(str(folder), FAMILY) == folder
    with pytest.raises(
        ModelError, match=r"has the architecture Idefics3For.*; known are Qwen2\.5-VL \(.*\); name a model of these, or"
    ):
        resolve_model_folder(str(folder))


@pytest.mark.parametrize(("width_px", "height_px"), SIZES)
def test_its_image_tokens_are_those_of_the_processor(processor: PromptProcessor, width_px: int, height_px: int) -> None:
    """Tiles, and the marks around them."""
    token_ids = processor.encode(processor.render("What is <image>?", 1), 1)
    text = processor.tokenizer.decode(token_ids)
    theirs = processor.processor(text=[text], images=[[picture(width_px, height_px)]], add_special_tokens=False)
    reference = ImageRef("", "", 0, width_px, height_px, processor.num_image_tokens(width_px, height_px))
    assert processor.expand(token_ids, [reference]) == list(theirs["input_ids"][0])
    tiles = processor.pixel_inputs([picture(width_px, height_px)])["pixel_values"]
    assert processor.image_tokens(width_px, height_px).num_features == 4 * len(tiles)


def reference(folder: Path, processor: PromptProcessor, width_px: int, height_px: int) -> ImageRef:
    path = folder / f"{width_px}x{height_px}.png"
    picture(width_px, height_px).save(path)
    facts = inspect_image(path.read_bytes(), 1.0)
    store_image(folder, path.read_bytes(), facts)
    num_tokens = processor.num_image_tokens(width_px, height_px)
    return ImageRef(str(folder / facts.file_name), facts.sha256, facts.num_bytes, width_px, height_px, num_tokens)


def groups(folder: Path, processor: PromptProcessor) -> list[TrainGroup]:
    """Prompts with no, one and two images, and one that two prompts show."""
    images = [reference(folder, processor, *size) for size in SIZES[:3]]
    made = []
    for number, shown in enumerate([(), images[:1], images[1:], images[:1]]):
        token_ids = processor.encode(processor.render(f"What {number}?", len(shown)), len(shown))
        rng = np.random.default_rng(number)
        answers = [rng.integers(20, 200, length).astype(np.int32) for length in (7, 1, 12)]
        rows = [
            TrainRow(Completion(ids, np.zeros(len(ids), np.float32), "", Finish.STOP, 0, 0), 1.0) for ids in answers
        ]
        made.append(TrainGroup(Prompt(f"p{number}", "ocr", "", "", token_ids, tuple(shown)), tuple(rows)))
    return made


@pytest.mark.parametrize("size", [0, 2, 8])
def test_its_packed_rows_are_those_of_its_own_forward(
    folder: Path, processor: PromptProcessor, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Log-probs and gradients, row by row through the class of transformers."""
    monkeypatch.setattr(micro_batches, "choose_segment_size", lambda *_: size)
    policy = PolicyModel(load_model(folder, processor.family), processor.family, 0.7, 16)
    twin, pixels = load_model(folder, processor.family), PixelCache(processor)
    chosen = groups(folder, processor)
    layout = Layout(processor.image_token_id, 0, 1, 64, 512)
    tokens = pixels.tokens(image for group in chosen for image in group.prompt.images)
    packed_T = policy(make_inputs(build_micro_batch(chosen, tokens, layout), pixels))
    plain = []
    for group in chosen:
        inputs = pixels.inputs(group.prompt.images) if group.prompt.images else {}
        images = {name: tensor[None] for name, tensor in inputs.items()}
        for row in group.rows:
            ids = row.completion.token_ids_T.astype(np.int64)
            shown = torch.tensor([processor.expand(group.prompt.token_ids, group.prompt.images) + ids.tolist()])
            logits = twin(input_ids=shown, **images).logits[0, -len(ids) - 1 : -1] / 0.7
            plain.append(torch.log_softmax(logits, -1).gather(1, torch.from_numpy(ids)[:, None])[:, 0])
    plain_T = torch.cat(plain)
    assert torch.allclose(packed_T, plain_T, atol=2e-5, rtol=0)
    packed_T.sum().backward()
    plain_T.sum().backward()
    expected = {name: parameter.grad for name, parameter in twin.named_parameters()}
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, parameter in policy.model.named_parameters():  # a key's bias moves no softmax: its gradient is rounding
        scale = expected[name].abs().max() + 1e-4 * largest
        assert (parameter.grad - expected[name]).abs().max() <= 1e-4 * scale, name


def test_its_size_is_planned_from_its_config_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    shape = find_shape(str(tmp_path), own_family=FAMILY)
    stored = load_file(folder / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == dict(shape.tensors)
    vision = sum(tensor.numel() for name, tensor in stored.items() if "vision_model" in name or "connector" in name)
    assert shape.num_vision_parameters == vision
    assert shape.kv_size == 32 and shape.max_positions == 512


def test_it_is_trained_for_two_steps_on_the_real_engines(folder: Path, tmp_path: Path) -> None:
    """Ray, vLLM and DeepSpeed. After each update the engine's log-probs of a prompt with an image equal the learner's,
    or the run would end (`weights.tolerance`); the export is the class's own folder, moved in all of its parts.
    """
    settings = {
        "model.path": folder, "model.family": FAMILY, "model.max_pixels": MAX_PIXELS,
        "reward.function": "toy_family:reward_letters", "rollout.max_tokens": 32, "algorithm.lipo.length_bound": 32,
        "run.num_steps": 2, "run.num_prompts_per_step": 4, "rollout.num_completions": 4, "evaluation.num_items": 0,
        "run.folder": tmp_path, "run.name": "second", "telemetry.progress": False,
    }  # fmt: skip
    assert main(["train", "--config", CONFIG, *(f"{key}={value}" for key, value in settings.items())]) == 0
    rows = [json.loads(line) for line in (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()]
    assert [row["version"] for row in rows] == [1, 2]
    assert all(row["num_trained_tokens"] > 0 and row["grad_norm"] > 0 for row in rows)
    assert all(row["mismatch_kl"] < 1e-6 for row in rows), "the engine samples from what the learner trains"
    before, export = load_file(folder / "model.safetensors"), tmp_path / "second" / "export"
    after = load_file(export / "model.safetensors")
    assert after.keys() == before.keys()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    for part in ("vision_model", "connector", "text_model", "lm_head"):
        assert any(part in name for name in moved), part
    exported = load_model(resolve_model_folder(str(export), FAMILY), toy_family.Idefics3())
    assert all(torch.equal(parameter, after[name]) for name, parameter in exported.named_parameters())
