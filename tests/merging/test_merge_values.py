"""Merged values: every method's definition, computed again on whole tensors (DARE apart, whose masks are the
library's); policies; layouts of names."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from tiny_models import (
    QUICK,
    Merge,
    Weights,
    composite,
    is_linear,
    report,
    weights,
    with_changes,
)
from torch import Tensor
from whole_matrix import merged_matrix

from tinyr1v_ray.cli.merge import METHODS as NAMED
from tinyr1v_ray.config.merge import WUDI, MethodConfig, MethodName
from tinyr1v_ray.merging.amm import AmmConfig, merge_task_vectors
from tinyr1v_ray.merging.baselines import magnitudes_at_densities
from tinyr1v_ray.merging.methods import ENTRYWISE, SOLVED
from tinyr1v_ray.merging.names import canonical_name
from tinyr1v_ray.merging.resmerge import resmerge
from tinyr1v_ray.merging.swudi import swudi
from tinyr1v_ray.report.names import KNOWN_NAMES

METHODS = tuple(name for name in get_args(MethodName) if name != "function")


def test_every_method_has_a_row_and_a_label() -> None:
    policies = {"sum", "base"}
    assert {*ENTRYWISE, *SOLVED} - policies == set(get_args(MethodName)) and not ENTRYWISE.keys() & SOLVED.keys()
    assert KNOWN_NAMES.keys() >= {*METHODS} and ", ".join(get_args(MethodName)) == NAMED


@pytest.fixture
def deltas(tied_base: Path, experts: list[Path]) -> tuple[Weights, list[Weights]]:
    base = weights(tied_base)
    return base, [{name: weights(e)[name] - base[name] for name in base} for e in experts]


def test_all_methods_in_one_pass(
    merge_here: Merge, tmp_path: Path, deltas: tuple[Weights, list[Weights]], tied_base: Path
) -> None:
    """Each method's output equals the definition, computed here on whole tensors."""
    base, taus = deltas
    steps = {"amm": {"steps": 40}}
    merge_here(methods={m: {"name": m} | (steps if m in ("amm", "wudi") else {}) for m in METHODS})
    out = {method: weights(tmp_path / "merged" / method) for method in METHODS}
    for name, weight in base.items():
        each = [tau[name] for tau in taus]
        flat = [tau.view(len(tau), -1) for tau in each]
        expected = {
            "average": sum(each) / 3,
            "task_arithmetic": 0.3 * sum(each),
            "ties": ties(each, 0.2),
            "dare": merged_matrix(flat, MethodConfig(name="dare"), canonical_name(name)).view(weight.shape),
            "ram": by_overlap(each, 0.0),
            "ram_plus": by_overlap(each, 0.2),
            **dict.fromkeys(("iso_c", "amm", "wudi", "resmerge", "swudi"), sum(each) / 3),
        }
        if is_linear(name, weight):
            left, values, right = torch.linalg.svd(sum(each).double(), full_matrices=False)
            expected["iso_c"] = (left @ right * values.mean()).float()
            expected["resmerge"], expected["swudi"] = resmerge(each), swudi(each).task_vector
            expected["amm"] = merge_task_vectors(each, AmmConfig(steps=40)).task_vector
            expected["wudi"] = merge_task_vectors(each, WUDI.model_copy(update={"steps": 40})).task_vector
        for method, delta in expected.items():
            assert torch.allclose(out[method][name], weight + delta, atol=2e-7), (method, name)
    for method in METHODS:
        assert list(out[method]) == list(base)


def ties(each: list[Tensor], density: float) -> Tensor:
    """Straight from the paper, by sorting."""
    trimmed = []
    for tau in each:
        keep = max(1, int(density * tau.numel()))
        threshold = tau.abs().flatten().sort(descending=True).values[keep - 1]
        trimmed.append(torch.where(tau.abs() >= threshold, tau, torch.zeros_like(tau)))
    stack = torch.stack(trimmed)
    agree = (torch.sign(stack) == torch.sign(stack.sum(0))) & (stack != 0)
    return (stack * agree).sum(0) / agree.sum(0).clamp(min=1)


def by_overlap(each: list[Tensor], rescale: float) -> Tensor:
    """RAM and RAM+ of the whole tensor, entry by entry as the paper says."""
    changed = torch.stack([tau.abs() > 1e-5 for tau in each])
    count = changed.sum(0)
    merged = torch.zeros_like(each[0])
    for tau, own in zip(each, changed, strict=True):
        num_alone, num_shared = int((own & (count == 1)).sum()), int((own & (count > 1)).sum())
        scale = 1 + rescale * min(1.0, num_shared / max(1, num_alone))
        merged += torch.where(own, tau * torch.where(count == 1, scale, 1 / count.clamp(min=1)), 0.0)
    return merged


def test_dare_drops_its_share_and_keeps_the_mean() -> None:
    taus = [torch.full((400, 500), float(i + 1)) for i in range(2)]
    method = MethodConfig(name="dare", scale=1.0, drop=0.2, seed=4)
    merged = merged_matrix(taus, method, "x")
    values, counts = merged.unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, 1.25, 2.5, 3.75])
    shares = [0.04, 0.16, 0.16, 0.64]
    assert (counts / merged.numel()).tolist() == pytest.approx(shares, abs=0.005)
    assert torch.equal(merged, merged_matrix(taus, method, "x"))
    assert not torch.equal(merged, merged_matrix(taus, method, "y"))


def test_the_exact_magnitude_is_found_block_by_block() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 10_001, generator=generator) * 1e-4
    values[1, :6000] = 0.25  # more ties than are kept
    blocks = [values[:, begin : begin + 777] for begin in range(0, 10_001, 777)]
    densities = (1e-6, 0.2, 0.5, 1.0)
    expected = [
        [float(row.abs().sort(descending=True).values[max(1, int(density * 10_001)) - 1]) for row in values]
        for density in densities
    ]
    assert magnitudes_at_densities(lambda: blocks, densities) == expected


def test_flat_and_composite_layouts_merge_alike(
    tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    other = [with_changes(e, tmp_path / f"c{i}", composite) for i, e in enumerate(experts)]
    merge_here(output=str(tmp_path / "plain"), method=QUICK)
    merge_here(output=str(tmp_path / "crossed"), experts=[str(e) for e in other], method=QUICK)
    assert (tmp_path / "plain/model.safetensors").read_bytes() == (tmp_path / "crossed/model.safetensors").read_bytes()
    base = with_changes(tied_base, tmp_path / "base", composite)
    merge_here(output=str(tmp_path / "both"), base=str(base), experts=[str(e) for e in other], method=QUICK)
    both, plain = weights(tmp_path / "both"), composite(weights(tmp_path / "plain"))
    assert both.keys() == plain.keys() and all(torch.equal(both[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ({"vision": "base"}, {"vision": "base", "merger": "base", "language": "amm", "norm": "average"}),
        ({"vision": "average", "others": "base"}, {"vision": "average", "norm": "base", "embedding": "base"}),
        ({"others": "sum"}, {"convolution": "sum", "bias": "sum", "vision": "amm"}),
        ({"name": "ties"}, {"norm": "ties", "language": "ties", "embedding": "ties"}),
        ({"name": "ties", "others": "average"}, {"norm": "average", "language": "ties"}),
    ],
)
def test_policies(
    settings: dict, rules: dict[str, str], merge_here: Merge, tmp_path: Path, deltas: tuple[Weights, list[Weights]]
) -> None:
    merge_here(method=settings | ({"amm": {"steps": 2}} if "name" not in settings else {}))
    base, taus = deltas
    out = weights(tmp_path / "merged")
    for record in report(tmp_path / "merged")["tensors"]:
        if record["kind"] in rules:
            assert record["rule"] == rules[record["kind"]]
        name = record["stored_name"]
        if record["rule"] == "base":
            assert record["action"] == "copied"
            assert torch.equal(out[name], base[name])
        if record["rule"] == "sum":
            assert torch.allclose(out[name], base[name] + sum(tau[name] for tau in taus), atol=1e-6)


def test_spectral_solver_end_to_end(merge_here: Merge, tmp_path: Path) -> None:
    merge_here(method={"solver": "spectral", "amm": {"projection": "none"}})
    found = [r for r in report(tmp_path / "merged")["tensors"] if r["action"] == "merged"]
    assert all(r["form"] == "spectral" and r["loss_last"] < r["loss_first"] for r in found)
