"""Planted experts have the overlap, the norms and the subspace that they are asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tinyr1v_ray.config.merge import OverlapCase
from tinyr1v_ray.merging.planting import plant


def specialists(num: int, shape: tuple[int, ...] = (30, 40)) -> tuple[list[Tensor], Tensor]:
    """With small cosines among them, of different norms; and the shared one."""
    generator = torch.Generator().manual_seed(num)
    common = torch.randn(*shape, generator=generator)
    own = [1e-3 * (i + 1) * (torch.randn(*shape, generator=generator) + 0.3 * common) for i in range(num)]
    return own, 2e-3 * (torch.randn(*shape, generator=generator) + 0.5 * common)


def cosines(vectors: list[Tensor]) -> Tensor:
    """Of all pairs i < j."""
    units = torch.stack([vector.double().flatten() / vector.double().norm() for vector in vectors])
    first, second = torch.triu_indices(len(vectors), len(vectors), 1)
    return (units @ units.T)[first, second]


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("num", [3, 8])
def test_every_cosine_is_the_overlap_and_norms_are_kept(num: int, overlap: float) -> None:
    own, shared = specialists(num)
    planted = plant(own, shared, overlap, OverlapCase(), "x")
    assert cosines(planted).tolist() == pytest.approx([overlap] * (num * (num - 1) // 2), abs=1e-5)
    for vector, given in zip(planted, own, strict=True):
        assert float(vector.norm()) == pytest.approx(float(given.norm()), rel=1e-5)
        assert vector.dtype == given.dtype


def test_without_overlap_experts_stay_near_the_real_ones() -> None:
    own, shared = specialists(3)
    for vector, given in zip(plant(own, shared, 0.0, OverlapCase(), "x"), own, strict=True):
        assert float(cosines([vector, given])) > 0.95


@pytest.mark.parametrize("opposed", [0.1, 0.25, 0.5])
def test_flipped_signs_lower_the_cosine(opposed: float) -> None:
    own, shared = specialists(3, (300, 400))
    planted = plant(own, shared, 0.6, OverlapCase(opposed=opposed), "x")
    assert cosines(planted).tolist() == pytest.approx([0.6 * (1 - 2 * opposed) ** 2] * 3, abs=0.01)
    again = plant(own, shared, 0.6, OverlapCase(opposed=opposed), "x")
    assert all(torch.equal(a, b) for a, b in zip(planted, again, strict=True))
    other = plant(own, shared, 0.6, OverlapCase(opposed=opposed), "y")
    assert not torch.equal(planted[0], other[0])


def test_norms_fall_over_the_experts() -> None:
    own, shared = specialists(3)
    norms = [float(vector.norm()) for vector in plant(own, shared, 0.4, OverlapCase(norm_ratio=100), "x")]
    mean = sum(float(vector.norm()) for vector in own) / 3
    assert norms == pytest.approx([mean, mean / 10, mean / 100], rel=1e-5)


def test_one_subspace() -> None:
    own, shared = specialists(4)
    planted = plant(own, shared, 0.4, OverlapCase(rank=5), "x")
    values = torch.linalg.svdvals(torch.cat(planted).double())
    assert values[4] > 1e-4 and values[5] < 1e-6 * values[0]
    assert [float(v.norm()) for v in planted] == pytest.approx([float(v.norm()) for v in own], rel=1e-5)
    bias = plant([v[:, 0] for v in own], shared[:, 0], 0.4, OverlapCase(rank=5), "x")  # has no row space
    assert cosines(bias).tolist() == pytest.approx([0.4] * 6, abs=1e-5)


def test_who_does_not_move_a_tensor_does_not_move_it_afterwards() -> None:
    own, shared = specialists(3)
    own[1] = torch.zeros_like(own[1])
    planted = plant(own, shared, 0.5, OverlapCase(), "x")
    assert not planted[1].any() and float(cosines([planted[0], planted[2]])) == pytest.approx(0.5, abs=1e-5)
    alone = plant(own, torch.zeros_like(shared), 0.5, OverlapCase(), "x")
    assert float(cosines([alone[0], alone[2]])) == pytest.approx(0.0, abs=1e-5)
    nothing = plant([torch.zeros(2, 3)] * 2, shared[:2, :3], 0.5, OverlapCase(), "x")
    assert not any(bool(vector.any()) for vector in nothing)
