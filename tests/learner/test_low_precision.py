"""bfloat16 arithmetic on one, two and three ranks, against float32: ZeRO stages, KL, checkpointing, minibatches.

Tolerances follow from bfloat16's unit roundoff, u = 2^-9. A gradient that went through R roundings one after the other
is off by about sqrt(R) u of its size; R is about 80 here (two language and two vision layers, ten roundings each,
forward and backward), so ERROR = sqrt(80) u = 0.017.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from learner_ranks import COMBINATIONS, distance, low_precision, metrics, weights
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

ERROR = math.sqrt(80) * 2**-9
LARGEST_RATE = 1e-4
CASES = [
    (num_ranks, scenario["name"])
    for num_ranks in (1, 2, 3)
    for scenario in low_precision(num_ranks)
    if "restart" not in scenario["name"]
]


def moved(folder: Path, model_folder: Path) -> np.ndarray:
    """How far each weight is from the base, one vector over all tensors."""
    base, found = load_file(model_folder / "model.safetensors"), weights(folder)
    return np.concatenate([(found[name] - base[name]).ravel() for name in base])


def in_float32(name: str) -> str:
    """The float32 scenario of a bfloat16 one."""
    combination = name.removeprefix("bfloat16-").rpartition("-")[0]
    return "zero2" if combination == "plain" else combination


@pytest.mark.parametrize("num_ranks, name", CASES)
def test_an_update_is_that_of_float32(ranks: dict[int, Path], model_folder: Path, num_ranks: int, name: str) -> None:
    """Adam moves a weight by about the rate in the direction of its gradient's sign. Relative gradient noise of ERROR
    turns the sign of a share arctan(ERROR) / pi of them, each of which takes 2 from the N that make up the cosine."""
    ours, expected = ranks[num_ranks] / name, ranks[1] / in_float32(name)
    low, full = moved(ours, model_folder), moved(expected, model_folder)
    assert 1 - low @ full / np.linalg.norm(low) / np.linalg.norm(full) < 2 * math.atan(ERROR) / math.pi
    assert np.linalg.norm(low) == pytest.approx(np.linalg.norm(full), rel=ERROR)
    for row, of_float32 in zip(metrics(ours), metrics(expected), strict=True):
        assert row["grad_norm"] == pytest.approx(of_float32["grad_norm"], rel=ERROR)
        assert row["num_trained_tokens"] == of_float32["num_trained_tokens"]


def test_any_two_options_are_tried_together() -> None:
    for left, right in ((0, 1), (0, 2), (1, 2)):
        assert len({(options[left], options[right]) for options in COMBINATIONS.values()}) == 4
    for num_ranks in (1, 2, 3):
        names = {name for ranks, name in CASES if ranks == num_ranks}
        assert {name[-1] for name in names} == {"0", "2", "3"}
        assert {name.removeprefix("bfloat16-").rpartition("-")[0] for name in names} == set(COMBINATIONS)
    assert len([name for ranks, name in CASES if ranks == 3]) == 3 * len(COMBINATIONS)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_restored_ranks_go_on_bit_for_bit(ranks: dict[int, Path], stage: int) -> None:
    """Masters of padded shards too."""
    restored, straight = ranks[3] / f"bfloat16-restart-zero{stage}", ranks[3] / f"bfloat16-plain-zero{stage}"
    assert distance(weights(restored), weights(straight)) == 0.0
    assert metrics(restored) == metrics(straight)


@pytest.mark.parametrize("num_ranks, name", CASES)
def test_masters_stay_float32(ranks: dict[int, Path], model_folder: Path, num_ranks: int, name: str) -> None:
    """Weights start from the base's exact values, and at most four steps move each by little more than the rate.

    bfloat16 holds 8 bits: a weight of 0.1 stored in it could only move by 4e-4 or not at all.
    """
    change = moved(ranks[num_ranks] / name, model_folder)
    assert np.abs(change).max() < 4 * LARGEST_RATE and (change != 0).mean() > 0.99
