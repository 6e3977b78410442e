"""PEFT adapters as experts: read in low rank, merged like their full copies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import (
    QUICK,
    Merge,
    Weights,
    composite_name,
    report,
    weights,
    with_changes,
)


def write_adapter(base: Path, folder: Path, seed: int, config: dict | None = None) -> Path:
    """A PEFT folder as peft writes it: adapters on all attention projections and on the embedding."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(base)} | (config or {})
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    tensors = {}
    for name, weight in weights(base).items():
        prefix = "base_model.model." + composite_name(name).removesuffix(".weight")
        if ("_proj.weight" in name and "self_attn" in name) or "qkv.weight" in name:
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(4, weight.shape[1], generator=generator)
            tensors[f"{prefix}.lora_B.weight"] = 1e-3 * torch.randn(weight.shape[0], 4, generator=generator)
        elif "embed_tokens" in name:
            tensors[f"{prefix}.lora_embedding_A"] = torch.randn(4, weight.shape[0], generator=generator)
            tensors[f"{prefix}.lora_embedding_B"] = 1e-3 * torch.randn(weight.shape[1], 4, generator=generator)
        elif name == "model.norm.weight":
            tensors[f"{prefix}.weight"] = weight + 0.01
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def merged_copy(base: Path, adapter: Path, folder: Path, scaling: float) -> Path:
    """What `merge_and_unload` would write."""
    factors = load_file(adapter / "adapter_model.safetensors")
    names = {composite_name(name): name for name in weights(base)}

    def change(w: Weights) -> Weights:
        w = dict(w)
        for key in factors:
            module = key.removeprefix("base_model.model.")
            if module.endswith(".lora_A.weight"):
                name = names[module.removesuffix(".lora_A.weight") + ".weight"]
                w[name] = w[name] + scaling * factors[key.replace("lora_A", "lora_B")] @ factors[key]
            elif module.endswith(".lora_embedding_A"):
                name = names[module.removesuffix(".lora_embedding_A") + ".weight"]
                w[name] = w[name] + scaling * (factors[key.replace("_A", "_B")] @ factors[key]).T
            elif module in names:
                w[names[module]] = factors[key]
        return w

    return with_changes(base, folder, change)


@pytest.mark.parametrize(
    ("settings", "scaling"), [({}, 2.0), ({"use_rslora": True}, 4.0), ({"alpha_pattern": {".*": 4}}, 1.0)]
)
def test_lora_experts_merge_like_their_full_copies(
    settings: dict, scaling: float, tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    adapters = [write_adapter(tied_base, tmp_path / f"a{i}", i, settings) for i in range(2)]
    copies = [merged_copy(tied_base, a, tmp_path / f"m{i}", scaling) for i, a in enumerate(adapters)]
    methods = {method: {"name": method} for method in ("average", "ties")} | {
        "amm": {"amm": {"steps": 30, "dtype": "float64"}}
    }
    full = [str(experts[0])]
    merge_here(experts=[*map(str, adapters), *full], methods=methods, output=str(tmp_path / "low"))
    merge_here(experts=[*map(str, copies), *full], methods=methods, output=str(tmp_path / "full"))
    for method in methods:
        low, dense = weights(tmp_path / "low" / method), weights(tmp_path / "full" / method)
        for name, tensor in dense.items():
            close = torch.isclose(low[name], tensor, atol=2e-6)
            # TIES cuts at a threshold: an entry that rounds to its other side changes
            assert float(close.float().mean()) > (0.99 if method == "ties" else 0.99999), (method, name)
    record = next(
        r for r in report(tmp_path / "low/amm")["tensors"] if r["stored_name"].endswith("0.mlp.up_proj.weight")
    )
    assert record["delta_norms"][0] == 0 and record["delta_norms"][2] > 0


def test_only_lora_experts_leave_the_rest_copied(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    adapters = [str(write_adapter(tied_base, tmp_path / f"a{i}", i)) for i in range(2)]
    merge_here(experts=adapters, method=QUICK)
    found = {r["stored_name"]: r for r in report(tmp_path / "merged")["tensors"]}
    assert found["model.layers.0.mlp.up_proj.weight"]["action"] == "copied"
    assert found["model.layers.0.self_attn.q_proj.weight"]["form"] == "thin"
    assert math.isclose(found["model.layers.0.self_attn.q_proj.weight"]["retention_cosine"], 1, rel_tol=1e-4)
