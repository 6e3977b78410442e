"""What every family proves, on the real engines: a tiny random model of its class is sampled, trained, published,
exported, merged and planned. One more family is one more line of `WRITERS`."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import learner_process
import numpy as np
import own_family
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_families import WRITERS

from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.images import inspect_image, open_image, store_image
from tinyr1v_ray.data.model_folder import resolve_model_folder
from tinyr1v_ray.data.processor import PromptProcessor
from tinyr1v_ray.errors import DataError, ModelError
from tinyr1v_ray.learner import micro_batch as micro_batches
from tinyr1v_ray.learner.micro_batch import build_micro_batch
from tinyr1v_ray.learner.pixels import PixelCache
from tinyr1v_ray.learner.policy import PolicyModel, make_inputs
from tinyr1v_ray.learner.prompt_tokens import Layout
from tinyr1v_ray.merging.local_run import local_runner
from tinyr1v_ray.merging.session import PreparedMerge, Silent, prepare_merge, run_merge
from tinyr1v_ray.models.loading import load_model
from tinyr1v_ray.models.registry import FAMILIES
from tinyr1v_ray.planning.shapes import find_shape
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.rollout.vllm.arguments import engine_arguments
from tinyr1v_ray.rollout.vllm.engine import VllmEngine
from tinyr1v_ray.types import Completion, Finish, ImageRef, Minibatch, Prompt, TrainBatch, TrainGroup, TrainRow
from tinyr1v_ray.weight_sync.cpu_file.transport import FileSource, FileUpdate

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # nat, float32 on both sides
SIZES = [(56, 56), (140, 28), (100, 100), (28, 90), (300, 200)]
Asked = list[tuple[Prompt, np.ndarray]]


def test_every_known_architecture_is_proven() -> None:
    assert set(WRITERS) == {architecture for family in FAMILIES for architecture in family.architectures}


class Nobodys(own_family.Llama):
    """A family of which vLLM knows nothing."""

    name = "Nobody's"
    architectures = ("NobodysForCausalLM",)


def test_a_family_that_vllm_lacks_is_one_line(tmp_path: Path) -> None:
    WRITERS["Qwen3ForCausalLM"](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"architectures": list(Nobodys.architectures), "model_type": "nobodys"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = make_config()
    model = run.model.model_copy(update={"family": "test_families:Nobodys"})
    settings = run.rollout.engine_settings(model, 0, run.weights, run.placement)
    with pytest.raises(
        ModelError, match=rf"{tmp_path} is a Nobody's, which the installed vLLM .* lacks; .*"
    ) as refused:
        engine_arguments(settings, tmp_path, 1)
    assert "\n" not in str(refused.value)


def picture(width_px: int, height_px: int) -> Image.Image:
    pixels = np.random.default_rng(width_px).integers(0, 256, (height_px, width_px, 3), np.uint8)
    return Image.fromarray(pixels)


def make_config() -> TrainConfig:
    tree = {
        "run": {"name": "families", "num_steps": 10, "num_prompts_per_step": 4},
        "data": {"train": ["miniature:ocr"]},
        "model": {"min_pixels": 784, "max_pixels": 112 * 112, "max_length": 256},
        "rollout": {"max_tokens": 16, "num_completions": 4},
        "learner": {"learning_rate": 1e-3, "weight_decay": 0.0},
        "algorithm": {"kl_coefficient": 0.0},
    }
    return TrainConfig.model_validate(tree)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="module", params=list(WRITERS))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder, which the package takes for one that can be trained."""
    folder = tmp_path_factory.mktemp(request.param) / "base"
    WRITERS[request.param](folder)
    return resolve_model_folder(str(folder))


@pytest.fixture(scope="module")
def processor(base: Path) -> PromptProcessor:
    return PromptProcessor(base, make_config().model)


@pytest.fixture(scope="module")
def prompts(base: Path, processor: PromptProcessor) -> list[Prompt]:
    """Without an image, and where the family takes them with one, with two, and with one that was shown before."""
    images = [image_reference(base.parent, processor, *size) for size in SIZES[:3]] if processor.reads_images else []
    shown: list[list[ImageRef]] = [[], images[:1], images[1:], images[:1]]
    made = []
    for number, own in enumerate(shown):
        token_ids = processor.encode(processor.render(f"What is {number}?", len(own)), len(own))
        made.append(Prompt(f"p{number}", "ocr", "", "", token_ids, tuple(own)))
    return made


def image_reference(folder: Path, processor: PromptProcessor, width_px: int, height_px: int) -> ImageRef:
    path = folder / f"{width_px}x{height_px}.png"
    picture(width_px, height_px).save(path)
    facts = inspect_image(path.read_bytes(), 1.0)
    store_image(folder, path.read_bytes(), facts)
    num_tokens = processor.num_image_tokens(width_px, height_px)
    return ImageRef(str(folder / facts.file_name), facts.sha256, facts.num_bytes, width_px, height_px, num_tokens)


class PlainModel:
    """The specification: the class's own forward pass over what its own processor makes of text and pictures."""

    def __init__(self, folder: Path, processor: PromptProcessor) -> None:
        self.processor = processor
        self.model = load_model(folder, processor.family).eval()

    def set_weights(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.data.copy_(tensors[self.processor.family.published_name(name)])

    def logprobs(self, prompt: Prompt, token_ids_T: np.ndarray, temperature: float = 1.0) -> torch.Tensor:
        text = self.processor.tokenizer.decode(prompt.token_ids)
        pictures = {"images": [[open_image(image) for image in prompt.images]]} if prompt.images else {}
        inputs = self.processor.processor(text=[text], add_special_tokens=False, return_tensors="pt", **pictures)
        ids_T = torch.from_numpy(token_ids_T.astype(np.int64))
        for name, tensor in inputs.items():  # what has a column a token goes on over the completion
            if tensor.shape == inputs["input_ids"].shape and name != "input_ids":
                fill = int(name == "attention_mask")
                inputs[name] = torch.cat([tensor, torch.full((1, len(ids_T)), fill, dtype=tensor.dtype)], dim=1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids_T[None]], dim=1)
        logits_TV = self.model(**inputs, use_cache=False).logits[0, -len(ids_T) - 1 : -1] / temperature
        return torch.log_softmax(logits_TV, -1).gather(1, ids_T[:, None])[:, 0]


@dataclass(frozen=True)
class Trained:
    """What one update on sampled groups left behind. Log-probs are of `sampled` before it and of `given` after it."""

    engine: VllmEngine
    first_export: Path
    export: Path
    metrics: dict[str, float]
    sampled: Asked
    sampled_logprobs: list[np.ndarray]
    learner_before: list[np.ndarray]
    given: Asked
    engine_base: list[np.ndarray]
    engine_after: list[np.ndarray]
    learner_after: list[np.ndarray]


@pytest.fixture(scope="module")
def trained(base: Path, processor: PromptProcessor, prompts: list[Prompt], pool: ProcessPoolExecutor) -> Iterator[Any]:
    """The learner exports what it has read, vLLM starts from that and samples, and the learner learns from it."""

    def learner(action: Callable[..., Any], *arguments: object) -> Any:
        return pool.submit(action, *arguments).result(timeout=300)

    config, folder = make_config(), base.parent
    learner(learner_process.start, config, base, free_port())
    learner(learner_process.export, folder / "first_export")
    settings = config.rollout.engine_settings(config.model, config.run.seed, config.weights, config.placement)
    engine = VllmEngine(settings, folder / "first_export", 2, processor.eos_token_ids)
    engine.connect(FileSource()).result(timeout=60)
    groups = engine.generate(prompts, Sampling(4, 1.0, 1.0, 16, seed=3)).result(timeout=300)
    sampled = [(group.prompt, row.token_ids_T) for group in groups for row in group.completions]
    learner_before = learner(learner_process.logprobs, sampled)
    given = [(prompt, token_ids(number, 12)) for number, prompt in enumerate(prompts)]
    engine_base = scores(engine, given)
    train_groups = [
        TrainGroup(group.prompt, tuple(TrainRow(row, 1.0 - index) for index, row in enumerate(group.completions)))
        for group in groups
    ]
    num_tokens = sum(len(ids) for _, ids in sampled)
    batch = TrainBatch(1, (Minibatch(tuple(train_groups), num_tokens, len(sampled)),))
    metrics = learner(learner_process.update, batch)
    learner(learner_process.write_weights, folder / "1.safetensors")
    engine.load_weights(1, FileUpdate(str(folder / "1.safetensors"))).result(timeout=60)
    learner(learner_process.export, folder / "export")
    yield Trained(
        engine, folder / "first_export", folder / "export", metrics, sampled,
        [row.logprobs_T for group in groups for row in group.completions], learner_before,
        given, engine_base, scores(engine, given), learner(learner_process.logprobs, given),
    )  # fmt: skip
    engine.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def token_ids(seed: int, length: int) -> np.ndarray:
    """Text, no marks."""
    return np.random.default_rng(seed).integers(20, 200, length).astype(np.int32)


def scores(engine: VllmEngine, asked: Asked) -> list[np.ndarray]:
    futures = [engine.score(prompt, ids) for prompt, ids in asked]
    return [future.result(timeout=60) for future in futures]


def largest(first: Sequence[np.ndarray], second: Sequence[Any]) -> float:
    return max(float(np.abs(one - np.asarray(other)).max()) for one, other in zip(first, second, strict=True))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def vision_names(folder: Path, processor: PromptProcessor) -> set[str]:
    """Published names of what `model.train_vision` is about."""
    model = load_model(folder, processor.family)
    vision = {id(p) for module in processor.family.vision_modules(model) for p in module.parameters()}
    return {processor.family.published_name(name) for name, p in model.named_parameters() if id(p) in vision}


def test_image_tokens_are_those_of_the_processor_of_its_class(processor: PromptProcessor) -> None:
    """The engine counts for itself, with every group that it samples."""
    if not processor.reads_images:
        with pytest.raises(DataError, match=r"an image of 56 x 56 pixels for a Qwen.*; it reads text alone; name a"):
            processor.num_image_tokens(56, 56)
        return
    for width_px, height_px in SIZES:
        text = processor.render("What is <image>?", 1)
        theirs = processor.processor(text=[text], images=[[picture(width_px, height_px)]], add_special_tokens=False)
        image = ImageRef("", "", 0, width_px, height_px, processor.num_image_tokens(width_px, height_px))
        assert processor.expand(processor.encode(text, 1), [image]) == list(theirs["input_ids"][0])


@pytest.mark.parametrize("size", [0, 2, 8])
def test_packed_rows_are_those_of_the_class_row_by_row(
    base: Path, processor: PromptProcessor, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Log-probs and gradients; 0 is one completion a row, else so many share their prompt."""
    monkeypatch.setattr(micro_batches, "choose_segment_size", lambda *_: size)
    policy = PolicyModel(load_model(base, processor.family), processor.family, 0.7, 16)
    plain, pixels = PlainModel(base, processor), PixelCache(processor)
    answers = [token_ids(number, length) for number, length in enumerate((7, 1, 12))]
    rows = [TrainRow(Completion(ids, np.zeros(len(ids), np.float32), "", Finish.STOP, 0, 0), 1.0) for ids in answers]
    groups = [TrainGroup(prompt, tuple(rows)) for prompt in prompts]
    layout = Layout(processor.image_token_id, 0, processor.family.num_position_axes, 64, 512)
    tokens = pixels.tokens(image for prompt in prompts for image in prompt.images)
    packed_T = policy(make_inputs(build_micro_batch(groups, tokens, layout), pixels))
    plain_T = torch.cat([plain.logprobs(prompt, ids, temperature=0.7) for prompt in prompts for ids in answers])
    assert torch.allclose(packed_T, plain_T, atol=2e-5, rtol=0)
    packed_T.sum().backward()
    plain_T.sum().backward()
    expected = {name: parameter.grad for name, parameter in plain.model.named_parameters()}
    most = max(gradient.abs().max() for gradient in expected.values())
    for name, parameter in policy.model.named_parameters():  # a key's bias moves no softmax: its gradient is rounding
        scale = expected[name].abs().max() + 1e-4 * most
        assert (parameter.grad - expected[name]).abs().max() <= 1e-4 * scale, name


def test_prompts_without_images_use_every_parameter(base: Path, processor: PromptProcessor) -> None:
    """Ranks that have no images reduce the same gradients as those that have."""
    policy = PolicyModel(load_model(base, processor.family), processor.family, 1.0, 16)
    layout = Layout(processor.image_token_id, 0, processor.family.num_position_axes, 64, 512)
    policy(make_inputs(micro_batches.idle_micro_batch(layout), PixelCache(processor))).sum().backward()
    assert not [name for name, parameter in policy.named_parameters() if parameter.grad is None]


def test_engine_and_learner_agree_before_and_after_an_update(trained: Trained, processor: PromptProcessor) -> None:
    """In all that was sampled; after the update in given tokens, whose log-probs have moved."""
    assert largest(trained.sampled_logprobs, trained.learner_before) < TOLERANCE
    assert largest(trained.engine_after, trained.learner_after) < TOLERANCE
    assert largest(trained.engine_after, trained.engine_base) > 100 * TOLERANCE
    assert trained.metrics["grad_norm"] > 0
    plain = PlainModel(trained.export, processor)
    with torch.no_grad():
        assert largest(trained.engine_after, [plain.logprobs(*asked) for asked in trained.given]) < TOLERANCE


def test_vision_weights_travel(trained: Trained, base: Path, processor: PromptProcessor, tmp_path: Path) -> None:
    """Vision weights alone are changed: prompts with an image have the new model's log-probs, others keep theirs."""
    own, moving = weights(base), vision_names(base, processor)
    changed = {name: tensor + 0.1 * torch.randn_like(tensor) if name in moving else tensor
               for name, tensor in own.items()}  # fmt: skip
    save_file(changed, tmp_path / "2.safetensors")
    trained.engine.load_weights(2, FileUpdate(str(tmp_path / "2.safetensors"))).result(timeout=60)
    seen, plain = scores(trained.engine, trained.given), PlainModel(base, processor)
    plain.set_weights(changed)
    with torch.no_grad():
        assert largest(seen, [plain.logprobs(*asked) for asked in trained.given]) < TOLERANCE
    for (prompt, _), before, after in zip(trained.given, trained.engine_base, seen, strict=True):
        assert (np.abs(before - after).max() > 100 * TOLERANCE) == bool(prompt.images)


def test_the_export_is_the_class_s_own_folder(trained: Trained, base: Path, processor: PromptProcessor) -> None:
    """In the names that its base has; vLLM was started from the first one. Every tensor has moved, by its gradient."""
    first, last, own = weights(trained.first_export), weights(trained.export), weights(base)
    assert first.keys() == last.keys() == own.keys()
    assert all(torch.equal(first[name], own[name]) for name in own)
    model_class = processor.family.model_class()
    model, report = model_class.from_pretrained(trained.export, output_loading_info=True, dtype=torch.float32)
    assert not any(report.values())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, last[processor.family.published_name(name)])
    assert not [name for name in own if torch.equal(last[name], own[name])]


def test_a_merge_of_three_experts_accounts_for_every_tensor(base: Path, processor: PromptProcessor) -> None:
    """The matrices of linear layers are the method's, told apart in tower and language model as the class does."""
    prepared = merged(base)
    report = json.loads((prepared.output / "merge.json").read_text())
    assert [record["stored_name"] for record in report["tensors"]] == list(weights(base)) and not report["refused"]
    model, name_of = load_model(prepared.output, processor.family), processor.family.published_name
    linear = {name_of(f"{name}.weight") for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    kinds = {task.stored_name: task.kind for task in prepared.plan.tasks}
    matrices = {name for name, kind in kinds.items() if kind in ("language", "vision", "merger")}
    assert matrices == linear - {"lm_head.weight"}
    assert {name for name in matrices if kinds[name] != "language"} == matrices & vision_names(base, processor)
    actions = {record["stored_name"]: record["action"] for record in report["tensors"]}
    assert {name for name, action in actions.items() if action == "merged"} == matrices
    assert {kinds[name] for name in kinds if "embed_tokens" in name} == {"embedding"}


def merged(base: Path) -> PreparedMerge:
    """Three experts: the base with a small random change of every tensor."""
    generator, experts = torch.Generator().manual_seed(7), []
    for number in range(3):
        folder = base.parent / f"expert_{number}"
        folder.mkdir()
        for file in base.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        moved = {name: tensor + 1e-3 * torch.randn(tensor.shape, generator=generator)
                 for name, tensor in weights(base).items()}  # fmt: skip
        save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
        experts.append(str(folder))
    config = MergeConfig(base=str(base), experts=tuple(experts), output=str(base.parent / "merged"))
    prepared = prepare_merge(config, base)
    run_merge(prepared, local_runner(2, 4 << 30), Silent())
    return prepared


def test_its_size_is_planned_from_its_config_alone(base: Path, processor: PromptProcessor, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    shape, own = find_shape(str(tmp_path)), weights(base)
    named = {processor.family.published_name(name): dims for name, dims in shape.tensors}
    assert named == {name: tuple(tensor.shape) for name, tensor in own.items()}
    assert shape.num_vision_parameters == sum(own[name].numel() for name in vision_names(base, processor))
    config = json.loads((base / "config.json").read_text())
    text = config.get("text_config") or config
    assert (shape.hidden_size, shape.num_layers) == (text["hidden_size"], text["num_hidden_layers"])
    assert (shape.kv_size, shape.max_positions) == (32, 512)
