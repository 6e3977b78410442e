"""The real vLLM engine on the miniature: parity with the plain model, seeds, weight updates and their traps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.images import open_image
from tinyr1v_ray.errors import RolloutError
from tinyr1v_ray.jobs.train.inputs import RunInputs, load_inputs
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.rollout.vllm.engine import VllmEngine
from tinyr1v_ray.types import Finish, Prompt, RolloutGroup
from tinyr1v_ray.weight_sync.cpu_file.transport import FileSource, FileUpdate

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # nat, float32 on both sides


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("engine")
    return parse_settings(
        TrainConfig,
        {},
        [
            "run.name=engine",
            f"run.folder={folder}",
            "data.train=[miniature:math]",
            "model.max_length=384",
            "model.min_pixels=784",
            "model.max_pixels=200704",
            "rollout.max_tokens=48",
            "placement.colocate=true",
        ],
    )


@pytest.fixture(scope="module")
def inputs(config: TrainConfig) -> RunInputs:
    return load_inputs(config)


@pytest.fixture(scope="module")
def prompts(inputs: RunInputs) -> list[Prompt]:
    iterator = inputs.train.iterate(0)
    return [next(iterator) for _ in range(6)]


@pytest.fixture(scope="module")
def engine(config: TrainConfig, inputs: RunInputs) -> Iterator[VllmEngine]:
    settings = config.rollout.engine_settings(config.model, config.run.seed, config.weights, config.placement)
    engine = VllmEngine(settings, inputs.model_folder, inputs.max_images, inputs.stop_ids)
    engine.connect(FileSource()).result()
    yield engine
    engine.close()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def perturbed(folder: Path, seed: int, only: str = "") -> dict[str, torch.Tensor]:
    """The base with noise on the tensors whose name contains `only`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) if only in name else tensor
        for name, tensor in weights(folder).items()
    }


def load(engine: VllmEngine, tensors: dict[str, torch.Tensor], version: int, folder: Path) -> None:
    path = folder / f"{version}.safetensors"
    save_file(tensors, path)
    engine.load_weights(version, FileUpdate(str(path))).result(timeout=60)


@pytest.fixture(autouse=True)
def base_weights(engine: VllmEngine, inputs: RunInputs) -> None:
    """Every test starts from the base as version 0."""
    engine.load_weights(0, FileUpdate(str(inputs.model_folder / "model.safetensors"))).result(timeout=60)


class PlainModel:
    """The specification: a straight transformers forward over the whole sequence."""

    def __init__(self, inputs: RunInputs, config: TrainConfig) -> None:
        from tinyr1v_ray.data.processor import load_processor

        self.processor = load_processor(inputs.model_folder, config.model)
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(inputs.model_folder, dtype=torch.float32).eval()

    def set_weights(self, tensors: dict[str, torch.Tensor]) -> None:
        named = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        missing = []
        for name, parameter in self.model.named_parameters():
            plain = name.removeprefix("model.").removeprefix("language_model.")
            source = named.get(plain, named.get(name.removeprefix("model.")))
            if source is None:
                missing.append(name)
            else:
                parameter.data.copy_(source)
        assert not missing

    @torch.no_grad()
    def logprobs(self, prompt: Prompt, token_ids_T: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        prompt_ids = self.processor.expand(prompt.token_ids, prompt.images)
        ids_L = torch.tensor([[*prompt_ids, *token_ids_T.tolist()]])
        pixels = self.processor.pixel_inputs([open_image(image) for image in prompt.images])
        types_L = (ids_L == self.processor.image_token_id).int()
        logits = self.model(input_ids=ids_L, mm_token_type_ids=types_L, **pixels).logits[0, len(prompt_ids) - 1 : -1]
        table = (logits.double() / temperature).log_softmax(-1)
        return table.gather(-1, torch.tensor(token_ids_T, dtype=torch.long)[:, None])[:, 0].numpy()


@pytest.fixture(scope="module")
def plain(inputs: RunInputs, config: TrainConfig) -> PlainModel:
    return PlainModel(inputs, config)


def sampling(**changes: Any) -> Sampling:
    return replace(Sampling(4, 1.0, 1.0, 48, seed=3), **changes)


def sample(engine: VllmEngine, prompts: list[Prompt], drawn: Sampling) -> list[RolloutGroup]:
    return engine.generate(prompts, drawn).result(timeout=120)


def tokens(groups: list[RolloutGroup]) -> list[list[int]]:
    return [completion.token_ids_T.tolist() for group in groups for completion in group.completions]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_logprobs_are_those_of_the_plain_model(
    engine: VllmEngine, plain: PlainModel, inputs: RunInputs, prompts: list[Prompt], temperature: float
) -> None:
    plain.set_weights(weights(inputs.model_folder))
    for group in sample(engine, prompts[:3], sampling(temperature=temperature)):
        for completion in group.completions:
            expected = plain.logprobs(group.prompt, completion.token_ids_T, temperature)
            assert np.abs(completion.logprobs_T - expected).max() < TOLERANCE


def test_completions_end_with_their_end_token_or_at_the_limit(
    engine: VllmEngine, inputs: RunInputs, prompts: list[Prompt]
) -> None:
    groups = sample(engine, prompts, sampling(max_tokens=12)) + sample(engine, prompts, sampling())
    completions = [completion for group in groups for completion in group.completions]
    assert {Finish.STOP, Finish.LENGTH} == {completion.finish for completion in completions}
    for completion in completions:
        assert completion.num_tokens == len(completion.logprobs_T) > 0
        assert (completion.token_ids_T[-1] in inputs.stop_ids) == (completion.finish == Finish.STOP)
        assert "<|im_end|>" not in completion.text


def test_seeds_decide_the_tokens_whatever_runs_beside(engine: VllmEngine, prompts: list[Prompt]) -> None:
    together = sample(engine, prompts, sampling())
    assert tokens(sample(engine, prompts, sampling())) == tokens(together)
    assert tokens(sample(engine, prompts[2:3], sampling())) == tokens(together[2:3])
    assert tokens(sample(engine, prompts, sampling(seed=4))) != tokens(together)
    next_epoch = [replace(prompt, epoch=1) for prompt in prompts]
    assert tokens(sample(engine, next_epoch, sampling())) != tokens(together)
    assert len({tuple(row) for row in tokens(together[:1])}) > 1  # completions of a group differ


@pytest.mark.parametrize("only", ["", "visual", "embed_tokens", "layers.0.mlp"])
def test_new_weights_are_live_everywhere(
    engine: VllmEngine, plain: PlainModel, inputs: RunInputs, prompts: list[Prompt], tmp_path: Path, only: str
) -> None:
    """Vision weights (no stale image embeddings), the tied head (no stale copy), and everything at once."""
    [before] = sample(engine, prompts[:1], sampling(num_completions=1))
    answer_T = before.completions[0].token_ids_T
    tensors = perturbed(inputs.model_folder, seed=1, only=only)
    load(engine, tensors, 7, tmp_path)
    plain.set_weights(tensors)
    expected = plain.logprobs(prompts[0], answer_T)
    seen = engine.score(prompts[0], answer_T).result(timeout=60)
    assert np.abs(expected - plain_base(plain, inputs, prompts[0], answer_T)).max() > 100 * TOLERANCE
    assert np.abs(seen - expected).max() < TOLERANCE
    [after] = sample(engine, prompts[:1], sampling(num_completions=1))
    assert (after.completions[0].first_version, after.completions[0].last_version) == (7, 7)


def plain_base(plain: PlainModel, inputs: RunInputs, prompt: Prompt, answer_T: np.ndarray) -> np.ndarray:
    plain.set_weights(weights(inputs.model_folder))
    return plain.logprobs(prompt, answer_T)


def test_an_update_in_mid_generation_marks_the_tokens_of_both_versions(
    engine: VllmEngine, plain: PlainModel, inputs: RunInputs, prompts: list[Prompt], tmp_path: Path
) -> None:
    """Paused by not stepping, resumed under the new weights: later tokens have the new weights' log-probs."""
    tensors = perturbed(inputs.model_folder, seed=2)
    save_file(tensors, tmp_path / "new.safetensors")
    generating = engine.generate(prompts, sampling(num_completions=16))
    loaded: Future[Future[None]] = Future()

    def load_now(_: object) -> None:
        loaded.set_result(engine.load_weights(5, FileUpdate(str(tmp_path / "new.safetensors"))))

    # Scored after every group has begun; the engine's own thread then asks for the weights, before its next step.
    engine.score(inputs.canary, np.array([5, 6])).add_done_callback(load_now)
    loaded.result(timeout=60).result(timeout=60)
    groups = generating.result(timeout=120)
    completions = [completion for group in groups for completion in group.completions]
    assert {(completion.first_version, completion.last_version) for completion in completions} == {(0, 5)}
    plain.set_weights(tensors)
    for group in groups[:2]:
        completion = group.completions[0]
        last = plain.logprobs(group.prompt, completion.token_ids_T)[-1]
        assert abs(completion.logprobs_T[-1] - last) < TOLERANCE


def test_a_sleeping_engine_keeps_no_cache_and_goes_on_with_new_weights_whole(
    engine: VllmEngine, plain: PlainModel, inputs: RunInputs, prompts: list[Prompt], tmp_path: Path
) -> None:
    """What is asked meanwhile waits for the last of two parts, also what had begun before."""

    used = []

    def note_use() -> None:
        """Share of the KV cache that is in use."""
        used.append(float(engine._engine.engine_core.engine_core.scheduler.kv_cache_manager.usage))

    def sleep_now(_: object) -> None:
        note_use()
        begun.set_result(engine.sleep())

    tensors = perturbed(inputs.model_folder, seed=5)
    halves = (dict(list(tensors.items())[part::2]) for part in range(2))
    files = [tmp_path / "first.safetensors", tmp_path / "last.safetensors"]
    for path, half in zip(files, halves, strict=True):
        save_file(half, path)
    begun: Future[Future[None]] = Future()
    waiting = [engine.generate(prompts[:2], sampling(num_completions=16))]
    scored = inputs.canary, np.array([5, 6])
    engine.score(*scored).add_done_callback(sleep_now)
    begun.result(timeout=60).result(timeout=60)
    note_use()
    assert used[0] > 0 and used[1] == 0
    waiting.append(engine.generate(prompts[2:3], sampling()))
    engine.load_weights(6, FileUpdate(str(files[0]), is_last=False)).result(timeout=60)
    time.sleep(0.5)
    assert not any(future.done() for future in waiting)
    engine.load_weights(6, FileUpdate(str(files[1]), is_first=False)).result(timeout=60)
    spans = [
        {(completion.first_version, completion.last_version) for group in groups for completion in group.completions}
        for groups in (future.result(timeout=120) for future in waiting)
    ]
    assert spans == [{(0, 6)}, {(6, 6)}]
    plain.set_weights(tensors)
    seen = engine.score(*scored).result(timeout=60)
    assert np.abs(seen - plain.logprobs(*scored)).max() < TOLERANCE


def test_image_token_counts_must_agree(engine: VllmEngine, prompts: list[Prompt]) -> None:
    image = prompts[0].images[0]
    wrong = replace(prompts[0], images=(replace(image, num_tokens=image.num_tokens + 1),))
    with pytest.raises(RolloutError, match="image token counts must agree"):
        engine.generate([prompts[1], wrong], sampling()).result(timeout=60)


def test_a_refused_request_does_not_take_the_engine_down(engine: VllmEngine, prompts: list[Prompt]) -> None:
    too_long = replace(prompts[0], token_ids=(5,) * 500, images=())
    with pytest.raises(RolloutError, match="engine refused a request"):
        engine.generate([too_long], sampling()).result(timeout=60)
    assert sample(engine, prompts[:1], sampling())
