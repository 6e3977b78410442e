"""What the stored type keeps of a merge, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_models import (
    Merge,
    report,
    weights,
    with_changes,
    write_expert,
)

from tinyr1v_ray.merging.rounding import to_output


def test_bfloat16_loses_small_deltas_and_says_so(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    experts = [str(write_expert(tied_base, tmp_path / f"e{i}", seed=i, scale=2e-5)) for i in range(2)]
    methods = {
        "exact": {"name": "average"},
        "nearest": {"name": "average", "output_dtype": "bfloat16"},
        "stochastic": {"name": "average", "output_dtype": "bfloat16", "rounding": "stochastic", "seed": 3},
    }
    summary = merge_here(experts=experts, methods=methods)
    kept = {}
    for name in methods:
        found = [
            r for r in report(tmp_path / "merged" / name)["tensors"] if r["stored_name"].endswith("up_proj.weight")
        ]
        kept[name] = [r["retention_cosine"] for r in found]
    assert min(kept["exact"]) > 0.999
    assert all(abs(s) < 0.9 for s in kept["stochastic"])  # noise, right in the mean alone (below)
    assert max(kept["nearest"]) < 0.6
    assert sum("keep less than 0.9" in line and line.startswith("nearest") for line in summary.warnings) == 1
    assert not any(line.startswith("exact") for line in summary.warnings)
    config = json.loads((tmp_path / "merged/nearest/config.json").read_text())
    assert config["dtype"] == "bfloat16"
    merged = {name: weights(tmp_path / "merged" / name) for name in methods}
    assert {tensor.dtype for tensor in merged["nearest"].values()} == {torch.bfloat16}
    name = "model.layers.0.mlp.up_proj.weight"
    exact = merged["exact"][name]
    assert (merged["nearest"][name].float() - exact).abs().max() <= exact.abs().max() * 2**-8
    merge_here(experts=experts, methods=methods, output=str(tmp_path / "again"))
    assert torch.equal(merged["stochastic"][name], weights(tmp_path / "again/stochastic")[name])


def test_stochastic_rounding_is_right_in_the_mean() -> None:
    weight = torch.full((200_000,), 1.0 + 0.3 * 2**-7)
    rounded = to_output(weight, torch.empty(len(weight), dtype=torch.bfloat16), seed=1).float()
    assert set(rounded.unique().tolist()) == {1.0, 1.0 + 2**-7}
    assert float(rounded.mean()) == pytest.approx(float(weight[0]), abs=2e-5)
    exact = torch.tensor([0.0, 1.5, -2.0, 2.0**-126])
    assert torch.equal(to_output(exact, torch.empty(4, dtype=torch.bfloat16), seed=2).float(), exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_experts_of_another_dtype_are_subtracted_in_float32(
    dtype: torch.dtype, tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    """tau of a bfloat16 expert is its float32 value less the float32 base, never a bfloat16 difference."""
    expert = with_changes(experts[0], tmp_path / "e", lambda w: {k: t.to(dtype) for k, t in w.items()})
    merge_here(experts=[str(expert)], method={"name": "task_arithmetic", "scale": 1.0})
    for name, tensor in weights(expert).items():
        assert torch.allclose(weights(tmp_path / "merged")[name], tensor.float(), atol=1e-7)


def test_growth_of_the_norm_is_warned_of(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    """WUDI's absolute learning rate on deltas as small as reinforcement learning leaves them."""
    experts = [str(write_expert(tied_base, tmp_path / f"e{i}", seed=i, scale=1e-5)) for i in range(2)]
    summary = merge_here(experts=experts, methods={"wudi": {"name": "wudi"}, "amm": {"name": "amm"}})
    assert any(line.startswith("wudi") and "learning_rate_mode relative" in line for line in summary.warnings)
    assert not any(line.startswith("amm") for line in summary.warnings)
