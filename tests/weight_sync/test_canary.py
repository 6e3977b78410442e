"""The canary on the real engine, in both kinds of arithmetic: sound versions pass, seeded faults do not."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.images import open_image
from tinyr1v_ray.data.processor import load_processor
from tinyr1v_ray.jobs.train.inputs import RunInputs, load_inputs
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.rollout.vllm.engine import VllmEngine
from tinyr1v_ray.types import Prompt, RolloutGroup
from tinyr1v_ray.weight_sync.canary import Canary
from tinyr1v_ray.weight_sync.cpu_file.receiver import FileReceiver
from tinyr1v_ray.weight_sync.cpu_file.transport import FileSource, FileUpdate
from tinyr1v_ray.weight_sync.transport import Edge

pytestmark = pytest.mark.slow

NOISE = 0.03
"""How far versions are apart, entry by entry; weights of the miniature's layers are about 0.05 large."""
TENSOR = "model.layers.1.mlp.down_proj.weight"
Weights = dict[str, torch.Tensor]


class BothEnds:
    """A plain model in the run's arithmetic in the learner's place, and one real engine in this process."""

    def __init__(self, dtype: str, folder: Path) -> None:
        settings = [
            "run.name=canary",
            f"run.folder={folder}",
            "data.train=[miniature:math]",
            "model.max_length=384",
            "model.max_pixels=200704",
            f"model.dtype={dtype}",
        ]
        self.folder = folder
        self.config: TrainConfig = parse_settings(TrainConfig, {}, [*settings, "rollout.max_tokens=48"])
        self.inputs: RunInputs = load_inputs(self.config)
        self.processor = load_processor(self.inputs.model_folder, self.config.model)
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            self.inputs.model_folder, dtype=getattr(torch, dtype)
        ).eval()
        self.base = load_file(self.inputs.model_folder / "model.safetensors")
        engine = self.config.rollout.engine_settings(self.config.model, 0, self.config.weights, self.config.placement)
        self.engine = VllmEngine(engine, self.inputs.model_folder, self.inputs.max_images, self.inputs.stop_ids)
        self.engine.connect(FileSource()).result(timeout=120)

    def canary(self) -> Canary:
        edge = Edge(cast(Any, self), cast(Any, self), self.config.weights, self.config.model.dtype, "canary")
        return Canary(edge, self.inputs.canary, self.config.rollout.max_tokens)

    def version(self, number: int) -> Weights:
        """0 is the base; each later one is the base with noise of its own."""
        generator = torch.Generator().manual_seed(number)
        return {
            name: tensor + (NOISE * torch.randn(tensor.shape, generator=generator) if number else 0.0)
            for name, tensor in self.base.items()
        }

    def publish(self, weights: Weights, arrived: Weights, version: int) -> None:
        """The learner has `weights`, the engine gets what `arrived`."""
        for name, parameter in self.model.named_parameters():
            parameter.data.copy_(weights[self.processor.family.published_name(name)])
        path = self.folder / "weights.safetensors"
        save_file(arrived, path)
        self.engine.load_weights(version, FileUpdate(str(path))).result(timeout=300)

    async def everywhere(self, method: object, timeout_s: float, prompt: Prompt, token_ids_T: np.ndarray) -> np.ndarray:
        prompt_ids = self.processor.expand(prompt.token_ids, prompt.images)
        ids_L = torch.tensor([[*prompt_ids, *token_ids_T.tolist()]])
        pixels = self.processor.pixel_inputs([open_image(image) for image in prompt.images])
        types_L = (ids_L == self.processor.image_token_id).int()
        with torch.no_grad():
            logits = self.model(input_ids=ids_L, mm_token_type_ids=types_L, **pixels).logits
        table = logits[0, len(prompt_ids) - 1 : -1].float().log_softmax(-1)
        return table.gather(-1, torch.tensor(token_ids_T, dtype=torch.long)[:, None])[:, 0].numpy()

    async def sample(self, prompt: Prompt, sampling: Sampling) -> RolloutGroup:
        return self.engine.generate([prompt], sampling).result(timeout=300)[0]

    async def score(self, prompt: Prompt, token_ids_T: np.ndarray, timeout_s: float) -> dict[str, np.ndarray]:
        return {"rollout-0": self.engine.score(prompt, token_ids_T).result(timeout=300)}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def ends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothEnds]:
    ends = BothEnds(request.param, tmp_path_factory.mktemp(request.param))
    yield ends
    ends.engine.close()
    del ends.engine
    gc.collect()  # vLLM's process groups go now, and not under the next engine of this process


def differing(canary: Canary, version: int) -> list[str]:
    return [str(error) for error in asyncio.run(canary.differing(version)).values()]


FAULTS: dict[str, Callable[[Weights, Weights, Weights], Weights]] = {
    "a dropped tensor": lambda base, old, new: {**new, TENSOR: base[TENSOR]},
    "one tensor of an older version": lambda base, old, new: {**new, TENSOR: old[TENSOR]},
    "an older version": lambda base, old, new: old,
    "stale vision weights": lambda base, old, new: {**new, **{name: old[name] for name in old if "visual" in name}},
}


@pytest.fixture
def trained(ends: BothEnds) -> Canary:
    """A canary that has seen the base and one later version, both of them sound."""
    canary = ends.canary()
    for number in (0, 1):
        ends.publish(ends.version(number), ends.version(number), number)
        assert differing(canary, number) == []
    return canary


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_did_not_arrive_are_noticed(ends: BothEnds, trained: Canary, fault: str) -> None:
    old, new = ends.version(1), ends.version(2)
    ends.publish(new, FAULTS[fault](ends.base, old, new), 2)
    [error] = differing(trained, 2)
    assert error.startswith("version 2: rollout-0 gives log-prob ")
    ends.publish(new, new, 2)
    assert differing(trained, 2) == []


def test_a_stale_vision_cache_is_noticed(ends: BothEnds, trained: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image was encoded under the version before, and an engine that does not forget that goes on with it."""
    monkeypatch.setattr(ends.engine._engine, "reset_encoder_cache", lambda: None)
    monkeypatch.setattr(ends.engine._engine, "reset_mm_cache", lambda: None)
    ends.publish(ends.version(2), ends.version(2), 2)
    assert len(differing(trained, 2)) == 1


def test_a_stale_tied_head_is_noticed(ends: BothEnds, trained: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's own end of an update leaves the packed copy of the head as it was."""

    def finish_without_head(receiver: FileReceiver) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(receiver.model, receiver.model_config)

    monkeypatch.setattr(FileReceiver, "finish_weight_update", finish_without_head)
    ends.publish(ends.version(2), ends.version(2), 2)
    assert len(differing(trained, 2)) == 1
