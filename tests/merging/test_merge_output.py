"""Merged folders: right values by every method, complete for transformers, accounted for, honest about losses."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import Merge, write_expert
from torch import Tensor
from whole_matrix import merged_matrix

from tinyr1v_ray.config.merge import WUDI, RecipeConfig
from tinyr1v_ray.merging.amm import AmmConfig, merge_task_vectors
from tinyr1v_ray.merging.baselines import magnitudes_at_densities
from tinyr1v_ray.merging.names import canonical_name
from tinyr1v_ray.merging.rounding import to_output

Weights = dict[str, Tensor]
QUICK = {"amm": {"steps": 8}}
METHODS = ("amm", "wudi", "average", "task_arithmetic", "ties", "dare", "iso_c")


def weights(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def report(folder: Path) -> dict:
    return json.loads((folder / "merge.json").read_text())


@pytest.fixture
def deltas(tied_base: Path, experts: list[Path]) -> tuple[Weights, list[Weights]]:
    base = weights(tied_base)
    return base, [{name: weights(e)[name] - base[name] for name in base} for e in experts]


def test_all_methods_in_one_pass(
    merge_here: Merge, tmp_path: Path, deltas: tuple[Weights, list[Weights]], tied_base: Path
) -> None:
    """Each recipe's output equals the definition, computed here on whole tensors."""
    base, taus = deltas
    steps = {"amm": {"steps": 40}}
    merge_here(recipes={m: {"method": m} | (steps if m in ("amm", "wudi") else {}) for m in METHODS})
    out = {method: weights(tmp_path / "merged" / method) for method in METHODS}
    for name, weight in base.items():
        each = [tau[name] for tau in taus]
        flat = [tau.view(len(tau), -1) for tau in each]
        expected = {
            "average": sum(each) / 3,
            "task_arithmetic": 0.3 * sum(each),
            "ties": ties(each, 0.2),
            "dare": merged_matrix(flat, RecipeConfig(method="dare"), canonical_name(name)).view(weight.shape),
            **dict.fromkeys(("iso_c", "amm", "wudi"), sum(each) / 3),
        }
        if is_linear(name, weight):
            left, values, right = torch.linalg.svd(sum(each).double(), full_matrices=False)
            expected["iso_c"] = (left @ right * values.mean()).float()
            expected["amm"] = merge_task_vectors(each, AmmConfig(steps=40)).task_vector
            expected["wudi"] = merge_task_vectors(each, WUDI.model_copy(update={"steps": 40})).task_vector
        for method, delta in expected.items():
            assert torch.allclose(out[method][name], weight + delta, atol=2e-7), (method, name)
    for method in METHODS:
        assert list(out[method]) == list(base)


def is_linear(name: str, weight: Tensor) -> bool:
    return weight.ndim == 2 and "embed" not in name and "lm_head" not in name and "norm" not in name


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


def test_dare_drops_its_share_and_keeps_the_mean() -> None:
    taus = [torch.full((400, 500), float(i + 1)) for i in range(2)]
    recipe = RecipeConfig(method="dare", scale=1.0, drop=0.2, seed=4)
    merged = merged_matrix(taus, recipe, "x")
    values, counts = merged.unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, 1.25, 2.5, 3.75])
    shares = [0.04, 0.16, 0.16, 0.64]
    assert (counts / merged.numel()).tolist() == pytest.approx(shares, abs=0.005)
    assert torch.equal(merged, merged_matrix(taus, recipe, "x"))
    assert not torch.equal(merged, merged_matrix(taus, recipe, "y"))


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


def test_report_accounts_for_every_tensor(merge_here: Merge, tmp_path: Path, tied_base: Path) -> None:
    summary = merge_here(recipe={"amm": {"steps": 40}})
    found = report(tmp_path / "merged")
    base = weights(tied_base)
    assert {record["stored_name"] for record in found["tensors"]} == set(base)
    assert summary.counts[""] == found["counts"]
    assert found["counts"] == {"merged": 26, "averaged": len(base) - 26, "copied": 0, "refused": 0}
    for record in found["tensors"]:
        assert record["reason"]
        assert len(record["delta_norms"]) == 3
        linear = is_linear(record["stored_name"], base[record["stored_name"]])
        assert (record["action"] == "merged") == linear
        if linear:
            assert 0 < record["loss_last"] < record["loss_first"]
            assert sum(record["weights_last"]) == pytest.approx(3, rel=1e-5)
    one = next(r for r in found["tensors"] if r["stored_name"] == "model.layers.0.mlp.up_proj.weight")
    assert one["base_norm"] == pytest.approx(float(base[one["stored_name"]].norm()), rel=1e-5)
    assert one["delta_cosines"][1][1] == pytest.approx(1)
    assert {Path(entry["path"]).name for entry in found["inputs"]} == {"model.safetensors"}
    card = (tmp_path / "merged" / "README.md").read_text()
    assert all(entry["sha256"] in card for entry in found["inputs"])
    for entry in found["inputs"]:
        assert entry["sha256"] == hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest()
    merged = weights(tmp_path / "merged")
    for record in found["tensors"]:
        stored = merged[record["stored_name"]].view(-1).view(torch.uint8).numpy()
        assert record["xxh3_128"] == xxhash.xxh3_128(stored).hexdigest()


def test_loads_with_transformers_and_keeps_every_eos(
    merge_here: Merge, tmp_path: Path, tied_base: Path, experts: list[Path]
) -> None:
    from transformers import AutoTokenizer, GenerationConfig, Qwen2_5_VLForConditionalGeneration

    third = tmp_path / "third"
    shutil.copytree(experts[2], third)
    (third / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    merge_here(experts=[str(experts[0]), str(experts[1]), str(third)], recipe=QUICK)
    folder = tmp_path / "merged"
    model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    state = model.model.language_model.layers[1].mlp.down_proj.weight
    assert torch.equal(state, weights(folder)["model.layers.1.mlp.down_proj.weight"])
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [1, 2, 7]
    assert AutoTokenizer.from_pretrained(folder).encode("t3 <image>") == [3, 500]
    assert "lm_head.weight" not in weights(folder)


def test_untied_head_is_written(untied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    experts = [write_expert(untied_base, tmp_path / f"e{i}", seed=i) for i in range(2)]
    merge_here(base=str(untied_base), experts=[str(e) for e in experts], recipe={"method": "average"})
    out, base = weights(tmp_path / "merged"), weights(untied_base)
    mean = sum(weights(e)["lm_head.weight"] for e in experts) / 2
    assert torch.allclose(out["lm_head.weight"], mean, atol=1e-6)
    assert set(out) == set(base)


def test_tied_duplicate_head_is_not_written_twice(
    tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    expert = with_changes(
        experts[0], tmp_path / "e", lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"].clone()}
    )
    merge_here(experts=[str(expert), str(experts[1])], recipe={"method": "average"})
    assert "lm_head.weight" not in weights(tmp_path / "merged")
    found = report(tmp_path / "merged")
    assert found["counts"]["refused"] == 1
    assert found["refused"][0]["name"] == "lm_head.weight"


def with_changes(source: Path, target: Path, change: Callable[[Weights], Weights]) -> Path:
    shutil.copytree(source, target)
    save_file(change(weights(source)), target / "model.safetensors", metadata={"format": "pt"})
    return target


def composite_name(name: str) -> str:
    """As transformers calls a tensor now."""
    if name.startswith("visual."):
        return "model." + name
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def composite(tensors: Weights) -> Weights:
    """The same tensors under such names."""
    return {composite_name(name): tensor for name, tensor in tensors.items()}


def test_flat_and_composite_layouts_merge_alike(
    tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    other = [with_changes(e, tmp_path / f"c{i}", composite) for i, e in enumerate(experts)]
    merge_here(output=str(tmp_path / "plain"), recipe=QUICK)
    merge_here(output=str(tmp_path / "crossed"), experts=[str(e) for e in other], recipe=QUICK)
    assert (tmp_path / "plain/model.safetensors").read_bytes() == (tmp_path / "crossed/model.safetensors").read_bytes()
    base = with_changes(tied_base, tmp_path / "base", composite)
    merge_here(output=str(tmp_path / "both"), base=str(base), experts=[str(e) for e in other], recipe=QUICK)
    both, plain = weights(tmp_path / "both"), composite(weights(tmp_path / "plain"))
    assert both.keys() == plain.keys() and all(torch.equal(both[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ({"vision": "base"}, {"vision": "base", "merger": "base", "language": "amm", "norm": "average"}),
        ({"vision": "average", "others": "base"}, {"vision": "average", "norm": "base", "embedding": "base"}),
        ({"others": "sum"}, {"convolution": "sum", "bias": "sum", "vision": "amm"}),
        ({"method": "ties"}, {"norm": "ties", "language": "ties", "embedding": "ties"}),
        ({"method": "ties", "others": "average"}, {"norm": "average", "language": "ties"}),
    ],
)
def test_policies(
    settings: dict, rules: dict[str, str], merge_here: Merge, tmp_path: Path, deltas: tuple[Weights, list[Weights]]
) -> None:
    merge_here(recipe=settings | ({"amm": {"steps": 2}} if "method" not in settings else {}))
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


def test_sharded_inputs_and_outputs(tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    sharded = tmp_path / "sharded"
    shutil.copytree(experts[0], sharded)
    (sharded / "model.safetensors").unlink()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(experts[0])
    model.save_pretrained(sharded, max_shard_size="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    merge_here(output=str(tmp_path / "plain"), recipe={"method": "ties"})
    merge_here(
        output=str(tmp_path / "split"), experts=[str(sharded), *map(str, experts[1:])], recipe={"method": "ties"},
        base=str(tied_base), shard_mib=1,
    )  # fmt: skip
    assert (
        load_file(tmp_path / "plain/model.safetensors").keys() == load_file(tmp_path / "split/model.safetensors").keys()
    )
    for name, tensor in weights(tmp_path / "plain").items():
        assert torch.equal(tensor, weights(tmp_path / "split")[name])


def test_output_shards_and_their_index(merge_here: Merge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    from tinyr1v_ray.merging import session
    from tinyr1v_ray.merging.plan import make_plan

    merge_here(output=str(tmp_path / "plain"), recipe=QUICK)
    monkeypatch.setattr(session, "make_plan", lambda *a, **k: make_plan(*a, **(k | {"shard_bytes": 100_000})))
    merge_here(recipe=QUICK)
    folder = tmp_path / "merged"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    plain = weights(tmp_path / "plain")
    assert index["metadata"]["total_size"] == sum(t.numel() * 4 for t in plain.values())
    for name, shard in index["weight_map"].items():
        with safe_open(folder / shard, "pt") as file:
            assert torch.equal(file.get_tensor(name), plain[name])
    Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)


# storage


def test_bfloat16_loses_small_deltas_and_says_so(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    experts = [str(write_expert(tied_base, tmp_path / f"e{i}", seed=i, scale=2e-5)) for i in range(2)]
    recipes = {
        "exact": {"method": "average"},
        "nearest": {"method": "average", "output_dtype": "bfloat16"},
        "stochastic": {"method": "average", "output_dtype": "bfloat16", "rounding": "stochastic", "seed": 3},
    }
    summary = merge_here(experts=experts, recipes=recipes)
    kept = {}
    for name in recipes:
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
    with safe_open(tmp_path / "merged/nearest/model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    merged = {name: weights(tmp_path / "merged" / name) for name in recipes}
    name = "model.layers.0.mlp.up_proj.weight"
    exact = merged["exact"][name]
    assert (merged["nearest"][name].float() - exact).abs().max() <= exact.abs().max() * 2**-8
    merge_here(experts=experts, recipes=recipes, output=str(tmp_path / "again"))
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
    merge_here(experts=[str(expert)], recipe={"method": "task_arithmetic", "scale": 1.0})
    for name, tensor in weights(expert).items():
        assert torch.allclose(weights(tmp_path / "merged")[name], tensor.float(), atol=1e-7)


def test_growth_of_the_norm_is_warned_of(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    """WUDI's absolute learning rate on deltas as small as reinforcement learning leaves them."""
    experts = [str(write_expert(tied_base, tmp_path / f"e{i}", seed=i, scale=1e-5)) for i in range(2)]
    summary = merge_here(experts=experts, recipes={"wudi": {"method": "wudi"}, "amm": {"method": "amm"}})
    assert any(line.startswith("wudi") and "learning_rate_mode relative" in line for line in summary.warnings)
    assert not any(line.startswith("amm") for line in summary.warnings)


def test_an_expert_equal_to_the_base_is_reported(
    tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    def only_language(w: Weights) -> Weights:
        base = weights(tied_base)
        return {name: base[name] if name.startswith("visual.") else tensor for name, tensor in w.items()}

    half = with_changes(experts[1], tmp_path / "half", only_language)
    summary = merge_here(experts=[str(experts[0]), str(tied_base), str(half)], recipe={"method": "average"})
    assert any("expert 1" in line and "every tensor" in line for line in summary.warnings)
    assert any("expert 2" in line and "vision matrices" in line for line in summary.warnings)


def test_conflicting_templates_are_reported_and_the_donor_wins(
    tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(experts[0], other)
    (other / "chat_template.jinja").write_text("another")
    for donor, text in (("base", (tied_base / "chat_template.jinja").read_text()), ("0", "another")):
        output = tmp_path / f"donor_{donor}"
        merge_here(experts=[str(other), str(experts[1])], donor=donor, output=str(output), recipe={"method": "average"})
        assert (output / "chat_template.jinja").read_text() == text
        assert any("chat_template.jinja" in line for line in report(output)["conflicts"])


def test_spectral_solver_end_to_end(merge_here: Merge, tmp_path: Path) -> None:
    merge_here(recipe={"solver": "spectral", "amm": {"projection": "none"}})
    found = [r for r in report(tmp_path / "merged")["tensors"] if r["action"] == "merged"]
    assert all(r["form"] == "spectral" and r["loss_last"] < r["loss_first"] for r in found)


# LoRA


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
    recipes = {method: {"method": method} for method in ("average", "ties")} | {
        "amm": {"amm": {"steps": 30, "dtype": "float64"}}
    }
    full = [str(experts[0])]
    merge_here(experts=[*map(str, adapters), *full], recipes=recipes, output=str(tmp_path / "low"))
    merge_here(experts=[*map(str, copies), *full], recipes=recipes, output=str(tmp_path / "full"))
    for method in recipes:
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
    merge_here(experts=adapters, recipe=QUICK)
    found = {r["stored_name"]: r for r in report(tmp_path / "merged")["tensors"]}
    assert found["model.layers.0.mlp.up_proj.weight"]["action"] == "copied"
    assert found["model.layers.0.self_attn.q_proj.weight"]["form"] == "thin"
    assert math.isclose(found["model.layers.0.self_attn.q_proj.weight"]["retention_cosine"], 1, rel_tol=1e-4)


def test_only_what_is_true_of_the_merged_model_is_copied(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    donor = write_expert(tied_base, tmp_path / "donor", seed=1)
    for name in ("vocab.json", "merges.txt", "preprocessor_config.json", "trainer_state.json", "scores.json"):
        (donor / name).write_text("{}")
    merge_here(experts=[str(donor)], donor="0", recipe={"method": "average"})
    found = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"vocab.json", "merges.txt", "preprocessor_config.json", "tokenizer.json", "config.json"} <= found
    assert not {"trainer_state.json", "scores.json"} & found
