"""Real DeepSpeed updates in processes of their own, against a plain torch twin: ranks, ZeRO stages, budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import learner_cases as cases
import numpy as np
import pytest
import torch
from learner_ranks import KL, PAIRED, SHARED, distance, metrics, weights
from safetensors import safe_open
from safetensors.numpy import load_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5

TWINS: dict[str, tuple[dict[str, Any], str]] = {
    "zero2": ({}, "mixed"),
    "paired": (PAIRED, "paired"),
    "lone": ({}, "lone"),
    "kl": (KL, "mixed"),
    "frozen": ({"model": {"train_vision": False}}, "mixed"),
    "constant": ({"algorithm": {"loss_average": "constant"}}, "mixed"),
}


@pytest.mark.parametrize("name", TWINS)
def test_an_update_is_that_of_plain_torch(one_rank: Path, model_folder: Path, name: str) -> None:
    """Same weights, loss and gradient norm as row-by-row autograd with whole logits and torch's AdamW."""
    sections, batches = TWINS[name]
    config = cases.make_config(**sections)
    twin = cases.TorchTwin(model_folder, config)
    before = twin.weights()
    history = [twin.update(batch) for batch in cases.SCENARIO_BATCHES[batches](model_folder)]
    assert distance(before, twin.weights()) > 20 * TOLERANCE
    assert distance(weights(one_rank / name), twin.weights()) < TOLERANCE
    for ours, expected in zip(metrics(one_rank / name), history, strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert ours["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


SAME_AS = {
    "zero0": "zero2",
    "zero3": "zero2",
    "budget-zero0": "zero2",
    "budget-zero2": "zero2",
    "budget-zero3": "zero2",
    "checkpointing-zero2": "zero2",
    "checkpointing-zero3": "zero2",
    "paired-zero3": "paired",
    "lone-zero3": "lone",
}


@pytest.mark.parametrize("name", SAME_AS)
def test_an_update_does_not_depend_on_how_it_is_computed(one_rank: Path, name: str) -> None:
    """ZeRO stage, micro-batch budget and gradient checkpointing change nothing."""
    check_same(one_rank / name, one_rank / SAME_AS[name])


@pytest.mark.parametrize("name", [scenario["name"] for scenario in SHARED])
def test_two_ranks_make_the_update_of_one(one_rank: Path, two_ranks: Path, name: str) -> None:
    """Also where the second rank has no rows at all, or takes up a saved state."""
    check_same(two_ranks / name, one_rank / name)


def check_same(left: Path, right: Path) -> None:
    assert distance(weights(left), weights(right)) < TOLERANCE
    assert np.abs(np.load(left / "canary.npy") - np.load(right / "canary.npy")).max() < 1e-4
    for ours, expected in zip(metrics(left), metrics(right), strict=True):
        assert ours == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_restored_learner_goes_on_bit_for_bit(one_rank: Path, stage: int) -> None:
    restored, straight = one_rank / f"restart-zero{stage}", one_rank / f"zero{stage}"
    assert distance(weights(restored), weights(straight)) == 0.0
    assert metrics(restored) == metrics(straight)


@pytest.mark.parametrize("stage", [2, 3])
def test_restored_ranks_go_on_bit_for_bit(two_ranks: Path, stage: int) -> None:
    restored, straight = two_ranks / f"restart-zero{stage}", two_ranks / f"zero{stage}"
    assert distance(weights(restored), weights(straight)) == 0.0
    assert metrics(restored) == metrics(straight)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_size_of_a_state_is_known_before_it_is_written(one_rank: Path, stage: int) -> None:
    folder = one_rank / f"restart-zero{stage}"
    written = sum(path.stat().st_size for path in (folder / "state").rglob("*") if path.is_file())
    expected = int((folder / "state_bytes.json").read_text())
    assert 0.7 * expected < written < expected + 200_000  # the files' own framing


def test_the_schedule_goes_on_after_a_restart(one_rank: Path) -> None:
    """Two optimizer steps an update and a warm-up: the position in the schedule is part of the state."""
    assert distance(weights(one_rank / "restart-paired"), weights(one_rank / "paired")) == 0.0


@pytest.mark.parametrize("num_ranks, name", [(1, "frozen"), (1, "bfloat16-frozen"), (3, "bfloat16-frozen-zero3")])
def test_a_frozen_vision_tower_keeps_its_exact_weights(
    ranks: dict[int, Path], model_folder: Path, num_ranks: int, name: str
) -> None:
    base, found = load_file(model_folder / "model.safetensors"), weights(ranks[num_ranks] / name)
    for key in base:
        assert np.array_equal(base[key], found[key]) == key.startswith("visual.")


def test_published_weights_carry_names_values_and_version(one_rank: Path, model_folder: Path) -> None:
    path = one_rank / "export" / "weights.safetensors"
    written, expected = load_file(path), weights(one_rank / "export")
    assert written.keys() == load_file(model_folder / "model.safetensors").keys()
    assert all(np.array_equal(written[key], expected[key]) for key in written)
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt", "version": "3"}


def test_an_export_loads_and_gives_the_learners_logprobs(one_rank: Path, model_folder: Path) -> None:
    """Weights in float32, processor and template load as usual, and a plain forward equals the learner's canary."""
    folder = one_rank / "export" / "export"
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    exported, expected = load_file(folder / "model.safetensors"), weights(one_rank / "export")
    assert all(np.array_equal(exported[key], expected[key]) for key in expected)
    processor = AutoProcessor.from_pretrained(folder)
    assert "<|im_start|>" in processor.chat_template
    twin = cases.TorchTwin(folder, cases.make_config(rollout={"temperature": 1.0}))  # as an engine scores given tokens
    group = cases.make_minibatch(model_folder, 900).groups[2]
    with torch.no_grad():
        logprobs = twin.logprobs(twin.model, group.prompt, group.rows[0].completion.token_ids_T)
    assert np.abs(logprobs.numpy() - np.load(one_rank / "export" / "canary.npy")).max() < 2e-5


def test_step_metrics_say_what_was_trained(one_rank: Path, model_folder: Path) -> None:
    """Tokens and left-out rows are counted, the schedule's rate is reported, a KL term shows once weights moved."""
    minibatch = cases.make_batch(model_folder, 1).minibatches[0]
    num_tokens = sum(row.completion.num_tokens for group in minibatch.groups for row in group.rows)
    first, *_, last = metrics(one_rank / "kl")
    assert first["num_trained_tokens"] == num_tokens and first["num_skipped_rows"] == 2
    assert first["kl"] == pytest.approx(0.0, abs=1e-9) and last["kl"] > 1e-5
    assert [row["learning_rate"] for row in metrics(one_rank / "paired")] == [1e-4, 1e-4]
    assert metrics(one_rank / "paired")[0]["clip_fraction"] == 0 < first["mismatch_kl"]


ERRORS = {
    "no state": ("CheckpointError", "holds no learner state"),
    "other stage": (
        "CheckpointError",
        "by 1 rank(s), ZeRO stage 2, float32, and this learner is 1 rank(s), ZeRO stage 3",
    ),
    "full disk": ("CheckpointError", "cannot be written"),
    "full disk, weights": ("CheckpointError", "cannot be written"),
    "not finite": ("LearnerError", "loss and gradient are finite in a sound run"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_goes_wrong_is_said_in_one_line(one_rank: Path, name: str) -> None:
    kind, text = json.loads((one_rank / "errors" / "messages.json").read_text())[name]
    assert (kind, ERRORS[name][1] in text, "\n" in text) == (ERRORS[name][0], True, False), text
