"""The packed forward pass against the model class's own, row by row."""

from pathlib import Path

import learner_cases as cases
import numpy as np
import pytest
import torch

from tinyr1v_ray.data.processor import load_processor
from tinyr1v_ray.errors import LearnerError
from tinyr1v_ray.learner import micro_batch as micro_batches
from tinyr1v_ray.learner.micro_batch import build_micro_batch, idle_micro_batch
from tinyr1v_ray.learner.pixels import PixelCache
from tinyr1v_ray.learner.policy import PolicyInputs, PolicyModel, make_inputs
from tinyr1v_ray.learner.prompt_tokens import Layout
from tinyr1v_ray.models.loading import load_model
from tinyr1v_ray.types import TrainGroup


class Bench:
    """A policy, its plain twin, and the groups they look at."""

    def __init__(self, folder: Path) -> None:
        self.config = cases.make_config()
        self.twin = cases.TorchTwin(folder, self.config)
        processor = load_processor(folder, self.config.model)
        model = load_model(folder, processor.family)
        self.policy = PolicyModel(model, processor.family, cases.TEMPERATURE, 16)
        self.pixels = PixelCache(processor)
        self.layout = Layout(cases.image_token_id(folder), 0, 3, 64, 256)
        self.groups = cases.make_minibatch(folder, 3).groups

    def inputs(self, groups: tuple[TrainGroup, ...]) -> PolicyInputs:
        tokens = self.pixels.tokens(image for group in groups for image in group.prompt.images)
        return make_inputs(build_micro_batch(groups, tokens, self.layout), self.pixels)

    def plain(self, groups: tuple[TrainGroup, ...]) -> torch.Tensor:
        rows = [(group.prompt, row.completion.token_ids_T) for group in groups for row in group.rows]
        return torch.cat([self.twin.logprobs(self.twin.model, prompt, ids) for prompt, ids in rows])


@pytest.fixture(scope="module")
def bench(model_folder: Path) -> Bench:
    return Bench(model_folder)


@pytest.mark.parametrize("size", [0, 1, 2, 8])
def test_logprobs_and_gradients_are_those_of_separate_rows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Whatever the packing: no row of its own, one, two or all completions behind a shared prompt."""
    monkeypatch.setattr(micro_batches, "choose_segment_size", lambda *_: size)
    inputs = bench.inputs(bench.groups)
    assert inputs.is_plain == (size == 0)
    weights = torch.randn(len(inputs.targets_T), generator=torch.Generator().manual_seed(1))
    bench.policy.zero_grad()
    packed = bench.policy(inputs)
    (packed * weights).sum().backward()
    bench.twin.model.zero_grad()
    plain = bench.plain(bench.groups)
    (plain * weights.double()).sum().backward()
    assert torch.allclose(packed.double(), plain, atol=2e-5, rtol=0)
    expected = dict(bench.twin.model.named_parameters())
    for name, parameter in bench.policy.model.named_parameters():
        scale = expected[name].grad.abs().max() + 1e-6
        assert (parameter.grad - expected[name].grad).abs().max() <= 1e-4 * scale, name


def test_packing_copies_each_prompt_less_often(bench: Bench) -> None:
    """The layout that is chosen computes fewer tokens than rows of their own."""
    num_plain = sum(group.num_tokens for group in bench.groups)
    inputs = bench.inputs(bench.groups)
    assert int((inputs.segment_RL >= 0).sum()) < 0.8 * num_plain


def test_an_image_is_encoded_once_a_group_forward_and_backward(bench: Bench, model_folder: Path) -> None:
    """Eight completions that see an image of 12 tokens send 48 patches through the tower, once in each direction."""
    image = cases.make_image(model_folder, 77, 112, 84)
    group = cases.make_group([image], 1, 8, cases.image_token_id(model_folder))
    patches: list[tuple[str, int]] = []
    block = bench.policy.model.model.visual.blocks[0]
    handles = [
        block.register_forward_hook(lambda _m, args, _o: patches.append(("forward", len(args[0])))),
        block.register_full_backward_hook(lambda _m, _i, grads: patches.append(("backward", len(grads[0])))),
    ]
    bench.policy(bench.inputs((group,))).sum().backward()
    for handle in handles:
        handle.remove()
    assert patches == [("forward", 48), ("backward", 48)]


def test_the_same_image_in_two_groups_is_encoded_once(bench: Bench, model_folder: Path) -> None:
    image = cases.make_image(model_folder, 78, 56, 28)
    image_id = cases.image_token_id(model_folder)
    groups = (cases.make_group([image], 1, 2, image_id), cases.make_group([image, image], 2, 3, image_id))
    inputs = bench.inputs(groups)
    assert inputs.pixels is not None and len(inputs.pixels["pixel_values"]) == 8
    with torch.no_grad():
        assert torch.allclose(bench.policy(inputs).double(), bench.plain(groups), atol=2e-5, rtol=0)


def test_prompt_tokens_get_no_logits(bench: Bench) -> None:
    """The vocabulary projection sees one position for each completion token and nothing else."""
    seen: list[int] = []
    handle = bench.policy.model.lm_head.register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    with torch.no_grad():
        bench.policy(bench.inputs(bench.groups))
    handle.remove()
    assert seen == [sum(row.completion.num_tokens for group in bench.groups for row in group.rows)]


def test_an_idle_pass_gives_every_parameter_a_zero_gradient(bench: Bench) -> None:
    """A rank without rows takes part in every module and adds nothing."""
    bench.policy.zero_grad()
    logprobs = bench.policy(make_inputs(idle_micro_batch(bench.layout), bench.pixels))
    (logprobs * torch.zeros(1)).sum().backward()
    for name, parameter in bench.policy.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


def test_groups_without_images_leave_the_tower_alone_in_value(bench: Bench, model_folder: Path) -> None:
    group = cases.make_group([], 5, 3, cases.image_token_id(model_folder))
    with torch.no_grad():
        assert torch.allclose(bench.policy(bench.inputs((group,))).double(), bench.plain((group,)), atol=2e-5, rtol=0)


def test_a_wrong_image_token_count_is_an_error(bench: Bench, model_folder: Path) -> None:
    from dataclasses import replace

    image = replace(cases.make_image(model_folder, 79, 56, 56), num_tokens=3)
    group = cases.make_group([image], 1, 1, cases.image_token_id(model_folder))
    with pytest.raises(LearnerError, match="gives 4 tokens in the learner and 3 in its reference"):
        bench.inputs((group,))
    bad = replace(group, prompt=replace(group.prompt, images=()))
    with pytest.raises(LearnerError, match="1 image placeholders for 0 images"):
        bench.inputs((bad,))


def test_patches_are_decoded_once_and_the_oldest_leave(model_folder: Path) -> None:
    config = cases.make_config()
    cache = PixelCache(load_processor(model_folder, config.model), max_bytes=2 * (8 * 1176 * 4 + 3 * 8))
    images = [cases.make_image(model_folder, 500 + k, 56, 28) for k in range(3)]
    cache.inputs([images[0], images[1], images[0]])
    assert cache.num_decoded == 2
    cache.inputs([images[2]])  # images[1] was used least recently
    cache.inputs([images[0]])
    assert cache.num_decoded == 3
    cache.inputs([images[1]])
    assert cache.num_decoded == 4
    assert np.isfinite(cache.inputs([images[1]])["pixel_values"].numpy()).all()
