"""Task vectors at the edge of arithmetic: AMM stays finite, and what has no norm takes no part."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tinyr1v_ray.merging.amm import AmmConfig, merge_task_vectors


def vector(seed: int) -> torch.Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)) * 1e-3


@pytest.mark.parametrize("tiny", [0.0, 1e-25], ids=["zero", "underflowing"])
def test_a_vector_without_a_norm_is_dropped(tiny: float) -> None:
    faint = torch.zeros(4, 6)
    faint[0, 0] = tiny
    config = AmmConfig(steps=5)
    without = merge_task_vectors([vector(0), vector(1)], config).task_vector
    assert torch.equal(merge_task_vectors([vector(0), faint, vector(1)], config).task_vector, without)
    assert torch.equal(merge_task_vectors([faint, faint], config).task_vector, torch.zeros(4, 6))


@pytest.mark.parametrize("compatibility", ["softmax", "shifted_cosine", "none"])
@pytest.mark.parametrize("projection", ["per_expert", "span", "none"])
def test_opposite_and_equal_vectors_stay_finite(compatibility: str, projection: str) -> None:
    config = AmmConfig(steps=20, compatibility=compatibility, projection=projection)
    for pair in ([vector(0), -vector(0)], [vector(0), vector(0)]):
        merged = merge_task_vectors(pair, config)
        assert torch.isfinite(merged.task_vector).all() and all(loss >= 0 for loss in merged.losses)


def test_a_merge_does_not_load_the_compiler() -> None:
    """`torch.optim` loads it at its first step: a second and 150 MB in every process that merges one matrix."""
    script = """
import sys, torch
from tinyr1v_ray.merging.amm import AmmConfig, merge_task_vectors
for form in ("gram", "thin"):
    merge_task_vectors(torch.randn(2, 4, 6), AmmConfig(steps=2), form=form)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
