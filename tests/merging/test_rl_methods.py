"""RAM, RAM+, ResMerge and SWUDI: against the papers' definitions written again in numpy and float64, and what must hold
of any merge made for experts trained by reinforcement learning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tinyr1v_ray.merging.ram import merge_by_overlap, overlap_ratios
from tinyr1v_ray.merging.resmerge import resmerge, spectral_head
from tinyr1v_ray.merging.swudi import swudi
from tinyr1v_ray.merging.task_vectors import LowRank

THRESHOLD = 1e-5
SHAPES = [(6, 40), (24, 9), (12, 12)]
"""Thin against K experts' rows, tall, square."""


def experts(shape: tuple[int, int], num: int, *, common: float = 0.4, seed: int = 0) -> list[Tensor]:
    """Of different norms, with a common part, and two fifths of the entries of each left as they were."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(*shape, generator=generator, dtype=torch.float64)
    found = []
    for number in range(num):
        own = torch.randn(*shape, generator=generator, dtype=torch.float64)
        moved = torch.rand(*shape, generator=generator) > 0.4
        found.append(1e-3 * (1 + number) * (own + common * shared) * moved)
    return found


def ram(taus: list[Tensor], rescale: float = 0.0, columns_per_block: int = 7) -> Tensor:
    """In blocks, as a tensor of any size is merged."""
    flat = torch.stack([tau.flatten() for tau in taus])
    blocks = list(flat.split(columns_per_block, dim=1))
    (ratios,) = overlap_ratios(lambda: blocks, [THRESHOLD])
    scales = [1 + rescale * ratio for ratio in ratios]
    return torch.cat([merge_by_overlap(block, THRESHOLD, scales) for block in blocks]).view(taus[0].shape)


METHODS: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "ram": ram,
    "ram_plus": lambda taus: ram(taus, 0.2),
    "resmerge": lambda taus: resmerge(taus),
    "swudi": lambda taus: swudi(taus).task_vector,
}


def ram_by_entry(taus: list[Tensor], rescale: float) -> np.ndarray:
    arrays = [tau.numpy().ravel() for tau in taus]
    movers = [[i for i, array in enumerate(arrays) if abs(array[e]) > THRESHOLD] for e in range(arrays[0].size)]
    scale = []
    for expert in range(len(arrays)):
        shared = sum(1 for who in movers if expert in who and len(who) > 1)
        alone = sum(1 for who in movers if who == [expert])
        scale.append(1 + rescale * min(1.0, shared / alone if alone else math.inf) if shared + alone else 1.0)
    merged = np.zeros(arrays[0].size)
    for entry, who in enumerate(movers):
        if len(who) == 1:
            merged[entry] = scale[who[0]] * arrays[who[0]][entry]
        elif who:
            merged[entry] = sum(arrays[i][entry] for i in who) / len(who)
    return merged.reshape(tuple(taus[0].shape))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def resmerge_by_svd(taus: list[Tensor], rank: int = 1, rho: float = 0.2) -> np.ndarray:
    heads, residuals = [], []
    for tau in taus:
        left, values, right = np.linalg.svd(tau.numpy(), full_matrices=False)
        heads.append(sum(values[k] * np.outer(left[:, k], right[k]) for k in range(rank)))
        residuals.append(tau.numpy() - heads[-1])
    units = [r / np.linalg.norm(r) for r in residuals]
    q = sum(units) / np.linalg.norm(sum(units))
    c = float(np.mean([cosine(u, q) for u in units]))
    s = float(np.mean([cosine(a, b) for a, b in itertools.combinations(units, 2)]))
    beta = 1.0 - 0.3 * 0.5 * ((c + 1) / 2 + (s + 1) / 2)
    backbone = c**beta * np.mean([np.linalg.norm(r) for r in residuals]) * q
    if c <= 1 / math.sqrt(len(taus)):
        backbone = np.mean(residuals, axis=0)
    agreement = float(np.mean([max(0.0, cosine(a, b)) for a, b in itertools.combinations(heads, 2)]))
    mean_head = np.mean(heads, axis=0)
    return backbone + rho * agreement * np.linalg.norm(backbone) * mean_head / np.linalg.norm(mean_head)


def swudi_by_eigenvectors(taus: list[Tensor], flow_time: float = 300.0, keep: float = 0.85) -> np.ndarray:
    arrays = [tau.numpy() for tau in taus]
    inverse = [1 / np.linalg.norm(a) ** 2 for a in arrays]
    curvature = sum(w * a.T @ a for w, a in zip(inverse, arrays, strict=True))
    target = sum(w * a @ a.T @ a for w, a in zip(inverse, arrays, strict=True))
    start, merged = sum(arrays), sum(arrays)
    values, vectors = np.linalg.eigh(curvature)
    for k in np.argsort(values)[::-1][: math.ceil(keep * len(values))]:
        if values[k] > 1e-12:
            direction = np.outer(vectors[:, k], vectors[:, k])
            share = 1 - math.exp(-values[k] * flow_time)
            merged = merged + (target - start @ curvature) @ direction * share / values[k]
    return merged


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("num", [2, 3, 5])
def test_each_method_is_its_paper_s_definition(shape: tuple[int, int], num: int) -> None:
    taus = experts(shape, num)
    expected = {
        "ram": ram_by_entry(taus, 0.0),
        "ram_plus": ram_by_entry(taus, 0.2),
        "resmerge": resmerge_by_svd(taus),
        "swudi": swudi_by_eigenvectors(taus),
    }
    for name, method in METHODS.items():
        np.testing.assert_allclose(method(taus).numpy(), expected[name], rtol=1e-8, atol=1e-14, err_msg=name)
        in_float32 = method([tau.float() for tau in taus]).double().numpy()
        error = np.linalg.norm(in_float32 - expected[name]) / np.linalg.norm(expected[name])
        assert error < 1e-5, (name, error)


@pytest.mark.parametrize(("rank", "budget"), [(2, 0.2), (1, 0.0), (3, 1.0)])
def test_resmerge_with_other_heads(rank: int, budget: float) -> None:
    taus = experts((10, 14), 3)
    np.testing.assert_allclose(resmerge(taus, rank, budget).numpy(), resmerge_by_svd(taus, rank, budget), rtol=1e-8)


@pytest.mark.parametrize(("flow_time", "keep"), [(1.0, 1.0), (30.0, 0.3), (1e4, 0.65)])
def test_swudi_with_other_filters(flow_time: float, keep: float) -> None:
    for shape in SHAPES:
        taus = experts(shape, 3)
        expected = swudi_by_eigenvectors(taus, flow_time, keep)
        np.testing.assert_allclose(swudi(taus, flow_time, keep).task_vector.numpy(), expected, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_experts_does_not_matter(name: str) -> None:
    taus = experts((8, 12), 4)
    first = METHODS[name](taus)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        torch.testing.assert_close(METHODS[name]([taus[i] for i in order]), first, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["resmerge", "swudi"])
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_merge_of_larger_experts_is_as_much_larger(name: str, factor: float) -> None:
    taus = experts((8, 12), 3)
    larger = METHODS[name]([factor * tau for tau in taus])
    torch.testing.assert_close(larger, factor * METHODS[name](taus), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_one_expert_is_itself_and_none_is_nothing(name: str) -> None:
    (tau,) = experts((8, 12), 1)
    zero = torch.zeros_like(tau)
    above = torch.where(tau.abs() > THRESHOLD, tau, zero) if name.startswith("ram") else tau
    torch.testing.assert_close(METHODS[name]([zero, tau, zero]), above, rtol=1e-9, atol=1e-16)
    assert torch.equal(METHODS[name]([zero, zero]), zero)


def test_identical_experts() -> None:
    """RAM gives the expert; ResMerge its residual and the agreed share of its head; SWUDI goes from the sum to the
    expert in every direction in which the experts move, as far as the flow has come."""
    (tau,) = experts((8, 12), 1)
    trio = [tau.clone() for _ in range(3)]
    above = torch.where(tau.abs() > THRESHOLD, tau, torch.zeros_like(tau))
    for name in ("ram", "ram_plus"):
        torch.testing.assert_close(METHODS[name](trio), above)
    head = spectral_head(tau, 1)
    residual = tau - head
    torch.testing.assert_close(resmerge(trio), residual + 0.2 * residual.norm() * head / head.norm())
    torch.testing.assert_close(swudi(trio, flow_time=1e9, keep=1.0).task_vector, tau)


def test_experts_on_disjoint_entries_are_all_kept_by_ram() -> None:
    rows = torch.randn(3, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    taus = [torch.zeros(3, 9, dtype=torch.float64).index_copy(0, torch.tensor([i]), rows[i : i + 1]) for i in range(3)]
    assert torch.equal(ram(taus), sum(taus))
    assert torch.equal(ram(taus, 0.2), sum(taus))  # nothing is shared, so nothing makes up for it


def test_ram_plus_makes_up_for_what_is_shared() -> None:
    """Expert 0 shares two entries and has four alone: lambda = 1 + 0.2 * 2/4. Expert 1 shares both: no scale shows."""
    first = torch.tensor([[1.0, 1, 1, 1, 1, 1]])
    second = torch.tensor([[0.0, 0, 0, 0, 3, -1]])
    assert ram([first, second], 0.2).tolist() == [[pytest.approx(v) for v in (1.1, 1.1, 1.1, 1.1, 2.0, 0.0)]]


@pytest.mark.parametrize("name", ["ram", "ram_plus", "resmerge", "swudi"])
def test_opposite_experts_cancel(name: str) -> None:
    (tau,) = experts((8, 12), 1)
    torch.testing.assert_close(METHODS[name]([tau, -tau]), torch.zeros_like(tau), rtol=0, atol=1e-12)


def test_opposite_heads_are_left_out_by_resmerge() -> None:
    """Residuals that agree, heads that do not: only the residuals are merged."""
    generator = torch.Generator().manual_seed(0)
    head = 5 * torch.outer(
        *(torch.nn.functional.normalize(torch.randn(n, generator=generator), dim=0) for n in (8, 12))
    )
    common = 0.1 * torch.randn(8, 12, generator=generator)
    taus = [(head + common).double(), (-head + common).double()]
    without = resmerge(taus, head_budget=0.0)
    torch.testing.assert_close(resmerge(taus), without, rtol=1e-9, atol=0)
    assert float((without * head).sum() / head.norm()) < 0.01 * float(head.norm())


def test_matrices_of_the_head_s_rank_have_no_residual() -> None:
    """A LoRA adapter of rank 1 is all head; rounding errors are no backbone."""
    generator = torch.Generator().manual_seed(1)
    taus = [LowRank(torch.randn(8, 1, generator=generator), torch.randn(1, 12, generator=generator)) for _ in range(2)]
    assert not bool(resmerge(taus).any())


def test_adapters_and_their_products_give_the_same_swudi() -> None:
    generator = torch.Generator().manual_seed(2)
    taus = [
        LowRank(*(torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((20, 3), (3, 30))))
        for _ in range(3)
    ]
    dense = swudi([tau.dense() for tau in taus])
    torch.testing.assert_close(swudi(taus).task_vector, dense.task_vector, rtol=1e-8, atol=1e-10)


def test_swudi_between_the_sum_and_the_minimiser() -> None:
    taus = experts((24, 9), 3)
    torch.testing.assert_close(swudi(taus, flow_time=1e-12).task_vector, sum(taus), rtol=0, atol=1e-13)
    longest = swudi(taus, flow_time=1e12, keep=1.0)
    scaled = [tau / tau.norm() for tau in taus]
    curvature = sum(tau.T @ tau for tau in scaled)
    target = sum(unit @ unit.T @ tau for unit, tau in zip(scaled, taus, strict=True))
    torch.testing.assert_close(
        longest.task_vector, torch.linalg.solve(curvature, target, left=False), rtol=1e-7, atol=0
    )
    losses = [swudi(taus, flow_time=t, keep=1.0).losses[-1] for t in (1e-3, 1.0, 10.0, 1e3, 1e6)]
    assert losses == sorted(losses, reverse=True) and losses[0] < longest.losses[0]
