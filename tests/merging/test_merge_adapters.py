"""Adapters by peft's rules: what is s B A on the base, what is that less the part an initialisation took out of the
base, and what is neither."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_merge_lora import write_adapter
from tiny_models import QUICK, Merge, Weights, composite_name, report, weights
from torch import Tensor

from tinyr1v_ray.errors import TinyR1VError
from tinyr1v_ray.merging.accounting import open_expert
from tinyr1v_ray.merging.initialisation import without_start
from tinyr1v_ray.merging.lora import open_adapter
from tinyr1v_ray.merging.task_vectors import LowRank

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Q0, DOWN1 = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
SUM = {"name": "task_arithmetic", "scale": 1.0}


def inner(name: str) -> str:
    return composite_name(name + ".weight").removesuffix(".weight")


def adapter(folder: Path, factors: dict[str, tuple[Tensor, Tensor]], whole: Weights | None = None, **config) -> Path:
    """A PEFT folder with (A, B) of linear modules, whole tensors by their full names, and settings."""
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": next((len(a) for a, _ in factors.values()), 8), "lora_alpha": 6} | config
    (folder / "adapter_config.json").write_text(json.dumps({k: v for k, v in settings.items() if v != "absent"}))
    tensors = {f"base_model.model.{name}": tensor for name, tensor in (whole or {}).items()}
    for module, (a, b) in factors.items():
        tensors[f"base_model.model.{inner(module)}.lora_A.weight"] = a
        tensors[f"base_model.model.{inner(module)}.lora_B.weight"] = b
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def factors_of(weight: Tensor, rank: int, seed: int, scale: float = 1e-2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = weight.shape
    return torch.randn(rank, columns, generator=generator), scale * torch.randn(rows, rank, generator=generator)


def delta_of(merged: Path, base: Path, name: str) -> Tensor:
    return weights(merged)[name] - weights(base)[name]


# scaling


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({}, 6 / 3),
        ({"lora_alpha": "absent"}, 8 / 3),  # peft's default
        ({"use_rslora": True, "lora_alpha": "absent"}, 8 / math.sqrt(3)),
        ({"alpha_pattern": {"q_proj": 9}}, 9 / 3),
        ({"alpha_pattern": {f"^{inner(Q0)}": 9}}, 9 / 3),  # the start of the name inside the model
        ({"alpha_pattern": {r"model\.language_model\.layers\.\d+\.self_attn\.[qk]_proj": 9}}, 9 / 3),
        ({"alpha_pattern": {"base_model.model." + inner(Q0): 9}}, 6 / 3),  # names no module of the model
        ({"alpha_pattern": {"proj": 9, "q_pro": 9, "layers.0": 9}}, 6 / 3),  # a part of a name is none
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 9, "self_attn.q_proj": 12, "q_proj": 3}}, 12 / 3),
        ({"r": 16, "rank_pattern": {f"^{inner(Q0)}$": 3}}, 6 / 3),
        ({"r": 16, "rank_pattern": {"k_proj": 5, "q_proj": 3}, "use_rslora": True}, 6 / math.sqrt(3)),
    ],
)
def test_scaling(config: dict, scaling: float, tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    a, b = factors_of(weights(tied_base)[Q0 + ".weight"], 3, 1)
    path = adapter(tmp_path / "a", {Q0: (a, b)}, **config)
    merge_here(experts=[str(path)], method=SUM)
    delta = delta_of(tmp_path / "merged", tied_base, Q0 + ".weight")
    assert torch.allclose(delta, scaling * b @ a, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"r": 4}, "has rank 3 where adapter_config.json says 4"),
        ({"rank_pattern": {"q_proj": 2}}, "has rank 3 where adapter_config.json says 2"),
        ({"lora_alpha": None}, "ranks and alphas are numbers"),
        ({"alpha_pattern": {"q_proj": "large"}}, "ranks and alphas are numbers"),
        ({"alpha_pattern": {"q_(proj": 3}}, "ranks and alphas are numbers"),
    ],
)
def test_a_scaling_that_cannot_be_known(config: dict, words: str, tied_base: Path, tmp_path: Path) -> None:
    path = adapter(tmp_path / "a", {Q0: factors_of(weights(tied_base)[Q0 + ".weight"], 3, 1)}, **config)
    with pytest.raises(TinyR1VError, match=words):
        open_adapter(path)


# initialisations


def removed(start: str, weight: Tensor, rank: int, scaling: float) -> Tensor:
    """What peft takes out of a weight: the truncated SVD, or s times the first columns of Q by the first rows of R."""
    if start == "olora":
        q, r = torch.linalg.qr(weight.double())
        return scaling * q[:, :rank] @ r[:rank]
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]


def started(start: str, weight: Tensor, rank: int, scaling: float) -> tuple[Tensor, Tensor]:
    """(A, B) as peft initialises them."""
    if start == "olora":
        q, r = torch.linalg.qr(weight)
        return r[:rank], q[:, :rank]
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    root = (values[:rank] / scaling).sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_part_of_the_base_in_the_factors_is_no_training(
    start: str, rslora: bool, tied_base: Path, merge_here: Merge, tmp_path: Path
) -> None:
    """tau = s B A - T, here in float64 from an SVD and a QR; wide and tall weights, and one that another expert holds
    in full."""
    base, rank = weights(tied_base), 3
    scaling = 6 / (math.sqrt(rank) if rslora else rank)
    trained, factors, expected = {}, {}, {}
    for seed, module in enumerate((Q0, DOWN1, "model.layers.0.mlp.up_proj")):
        weight = base[module + ".weight"]
        a, b = started(start, weight, rank, scaling)
        generator = torch.Generator().manual_seed(seed)
        a, b = (f + 0.02 * f.std() * torch.randn(f.shape, generator=generator) for f in (a, b))
        factors[module] = (a.contiguous(), b.contiguous())
        expected[module] = scaling * b.double() @ a.double() - removed(start, weight, rank, scaling)
        trained[module + ".weight"] = (weight.double() + expected[module]).float()
    path = adapter(tmp_path / "a", factors, init_lora_weights=start, use_rslora=rslora)
    merge_here(experts=[str(path)], method=SUM, output=str(tmp_path / "one"))
    for module, tau in expected.items():
        delta = delta_of(tmp_path / "one", tied_base, module + ".weight").double()
        assert float((delta - tau).norm() / tau.norm()) < 1e-5, module

    full = tmp_path / "full"
    full.mkdir()
    for file in tied_base.iterdir():
        (full / file.name).write_bytes(file.read_bytes())
    save_file(base | trained, full / "model.safetensors")
    other = write_adapter(tied_base, tmp_path / "other", 5)
    methods = {"amm": {"amm": {"steps": 30, "dtype": "float64"}}, "ties": {"name": "ties", "density": 1.0}}
    for name, expert in (("low", path), ("dense", full)):
        merge_here(experts=[str(expert), str(other)], methods=methods, output=str(tmp_path / name))
    for method in methods:
        low, dense = weights(tmp_path / "low" / method), weights(tmp_path / "dense" / method)
        for module in factors:
            name = module + ".weight"
            moved = dense[name] - base[name]
            assert float((low[name] - dense[name]).norm() / moved.norm()) < 1e-3, (method, name)


def test_an_adapter_that_has_not_been_trained_is_zero() -> None:
    """What cancels, cancels in float64: of a weight of norm 1 nothing is left but the rounding of float32 factors."""
    weight = torch.randn(40, 70, generator=torch.Generator().manual_seed(0)) / 50
    for start in ("pissa", "olora"):
        a, b = started(start, weight, 5, 1.0)
        tau = without_start(LowRank(b, a), start, weight, 1.0)
        assert tau.left.shape == (40, 10) and tau.right.shape == (10, 70)
        assert torch.allclose(tau.right @ tau.right.T, torch.eye(10), atol=1e-5)
        assert float(tau.dense().norm() / weight.norm()) < 1e-5


@pytest.mark.parametrize("value", ["pissa_niter_4", "corda", "loftq", "lora_ga", "a_method_of_next_year"])
def test_an_initialisation_that_cannot_be_derived_again_is_refused_by_name(
    value: str, tied_base: Path, tmp_path: Path
) -> None:
    factors = {Q0: factors_of(weights(tied_base)[Q0 + ".weight"], 2, 1)}
    path = adapter(tmp_path / "a", factors, init_lora_weights=value)
    with pytest.raises(TinyR1VError, match=rf"init_lora_weights '{value}'.*path_initial_model_for_weight_conversion"):
        open_expert(path)


@pytest.mark.parametrize("value", [True, False, "gaussian", "eva", "orthogonal", "mica", "absent"])
def test_an_initialisation_that_leaves_the_base_alone_is_plain_lora(
    value: object, tied_base: Path, tmp_path: Path
) -> None:
    factors = {Q0: factors_of(weights(tied_base)[Q0 + ".weight"], 2, 1)}
    path = adapter(tmp_path / "a", factors, init_lora_weights=value)
    (delta,) = open_adapter(path).deltas.values()
    assert delta.start is None and delta.rank == 2


def test_a_converted_adapter_is_plain_lora(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    """peft's conversion stores [B, -B_0] and [A; A_0], twice the rank and twice alpha."""
    weight = weights(tied_base)[Q0 + ".weight"]
    a0, b0 = started("pissa", weight, 2, 3.0)
    a, b = a0 + 0.01, b0 - 0.01
    both = (torch.cat([a, a0]), torch.cat([b, -b0], dim=1))
    path = adapter(tmp_path / "a", {Q0: both}, init_lora_weights=True, r=4, lora_alpha=12)
    merge_here(experts=[str(path)], method=SUM)
    delta = delta_of(tmp_path / "merged", tied_base, Q0 + ".weight")
    assert torch.allclose(delta, 3.0 * (b @ a - b0 @ a0), atol=1e-6)


# what is more or less than factors


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        ({"alora_invocation_tokens": [5, 6]}, "leave it out"),
        ({"arrow_config": {"top_k": 2}}, "leave it out"),
        ({"use_qalora": True}, "leave it out"),
        ({"use_bdlora": {"nblocks": 2}}, "merge it into a model first"),
        ({"kasa_config": {"beta": 1e-4}}, "merge it into a model first"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "merge it into a model first"),
        ({"megatron_config": {"tensor_model_parallel_size": 2}}, "merge it into a model first"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "merge it into a model first"),
        ({"trainable_token_indices": {"embed_tokens": [3]}}, "merge it into a model first"),
        ({"lora_bias": True}, "merge it into a model first"),
    ],
)
def test_other_adapters_are_refused_by_name(config: dict, remedy: str, tied_base: Path, tmp_path: Path) -> None:
    path = adapter(tmp_path / "a", {Q0: factors_of(weights(tied_base)[Q0 + ".weight"], 2, 1)}, **config)
    with pytest.raises(TinyR1VError, match=rf"has {next(iter(config))};.*{remedy}"):
        open_expert(path)


def test_settings_that_are_unset_are_no_reason(tied_base: Path, tmp_path: Path) -> None:
    """As peft writes them all."""
    unset = {
        "alora_invocation_tokens": None, "arrow_config": None, "use_qalora": False, "use_dora": False,
        "megatron_config": None, "megatron_core": "megatron.core", "target_parameters": None, "layer_replication": None,
        "trainable_token_indices": None, "loftq_config": {}, "corda_config": None, "eva_config": None,
        "alpha_pattern": {}, "rank_pattern": {}, "init_lora_weights": True, "bias": "none", "lora_bias": False,
    }  # fmt: skip
    path = adapter(tmp_path / "a", {Q0: factors_of(weights(tied_base)[Q0 + ".weight"], 2, 1)}, **unset)
    assert len(open_adapter(path).deltas) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wrapped", [".base_layer", ""])
def test_the_frozen_weight_beside_factors_adds_nothing(
    wrapped: str, dtype: torch.dtype, untied_base: Path, merge_here: Merge, tmp_path: Path
) -> None:
    """peft stores it of an adapted embedding and head, in the type that the model was loaded in."""
    base = weights(untied_base)
    factors = {"lm_head": factors_of(base[HEAD], 2, 1), Q0: factors_of(base[Q0 + ".weight"], 2, 2)}
    path = adapter(tmp_path / "a", factors, {f"lm_head{wrapped}.weight": base[HEAD].to(dtype)})
    merge_here(base=str(untied_base), experts=[str(path)], method=SUM)
    a, b = factors["lm_head"]
    assert torch.allclose(delta_of(tmp_path / "merged", untied_base, HEAD), 3.0 * b @ a, atol=1e-6)


def test_a_frozen_weight_that_is_not_the_base_s_tells_another_base(
    untied_base: Path, merge_here: Merge, tmp_path: Path
) -> None:
    base = weights(untied_base)
    changed = base[HEAD].clone()
    changed[-1, -1] += 1e-3
    factors = {"lm_head": factors_of(base[HEAD], 2, 1)}
    path = adapter(tmp_path / "a", factors, {"lm_head.base_layer.weight": changed})
    with pytest.raises(TinyR1VError, match=r"lm_head\.base_layer\.weight, the frozen weight .* is not the base's"):
        merge_here(base=str(untied_base), experts=[str(path)], method=SUM)


def test_saved_modules_under_the_names_of_all_versions(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    norm = weights(tied_base)["model.norm.weight"] + 0.25
    for index, part in enumerate(("", ".modules_to_save", ".modules_to_save.default", ".base_layer")):
        path = adapter(tmp_path / f"a{index}", {}, {f"model.language_model.norm{part}.weight": norm})
        merge_here(experts=[str(path)], method=SUM, output=str(tmp_path / f"m{index}"))
        assert torch.equal(weights(tmp_path / f"m{index}")["model.norm.weight"], norm), part


def test_two_layouts_in_one_adapter(tied_base: Path, tmp_path: Path) -> None:
    path = adapter(tmp_path / "a", {Q0: factors_of(weights(tied_base)[Q0 + ".weight"], 2, 1)})
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    old = {name.replace("model.language_model.", "model."): tensor.clone() for name, tensor in tensors.items()}
    save_file(tensors | old, file)
    with pytest.raises(TinyR1VError, match="two layouts"):
        open_adapter(path)


# tied heads


def embedding_factors(weight: Tensor, seed: int) -> tuple[Weights, Tensor]:
    """Factors of an adapted embedding as peft names them, and B A."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = weight.shape
    a, b = torch.randn(2, rows, generator=generator), 1e-2 * torch.randn(columns, 2, generator=generator)
    module = "model.language_model.embed_tokens"
    return {f"{module}.lora_embedding_A": a, f"{module}.lora_embedding_B": b}, (b @ a).T


def test_a_changed_embedding_of_a_tied_base_moves_the_head_and_says_so(
    tied_base: Path, merge_here: Merge, tmp_path: Path
) -> None:
    weight = weights(tied_base)[EMBED]
    factors, change = embedding_factors(weight, 3)
    replaced = {"model.language_model.embed_tokens.weight": weight + 0.5}
    paths = [adapter(tmp_path / "a", {}, factors, r=2), adapter(tmp_path / "b", {}, replaced)]
    for path, delta in zip(paths, (3.0 * change, torch.full_like(weight, 0.5)), strict=True):
        merge_here(experts=[str(path)], method=SUM, output=str(tmp_path / f"m_{path.name}"))
        assert torch.allclose(delta_of(tmp_path / f"m_{path.name}", tied_base, EMBED), delta, atol=1e-6)
        (line,) = [line for line in report(tmp_path / f"m_{path.name}")["warnings"] if "head moves with it" in line]
        assert line.startswith("expert 0")


def test_an_embedding_of_an_untied_base_moves_no_head(untied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    factors, _ = embedding_factors(weights(untied_base)[EMBED], 3)
    path = adapter(tmp_path / "a", {}, factors, r=2)
    merge_here(base=str(untied_base), experts=[str(path)], method=SUM)
    assert not [line for line in report(tmp_path / "merged")["warnings"] if "head moves" in line]
    assert torch.equal(weights(tmp_path / "merged")[HEAD], weights(untied_base)[HEAD])


def test_a_head_of_its_own_does_not_fit_a_tied_base(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    weight = weights(tied_base)[EMBED]
    embedding, _ = embedding_factors(weight, 3)
    heads = [
        ({"lm_head": factors_of(weight, 2, 1)}, {}),
        ({}, {HEAD: weight + 0.1}),
        ({}, {HEAD: weight + 0.1, "model.language_model.embed_tokens.weight": weight.clone()}),
        ({"lm_head": factors_of(weight, 2, 1)}, embedding),
    ]
    for index, (factors, whole) in enumerate(heads):
        path = adapter(tmp_path / f"a{index}", factors, whole, r=2)
        with pytest.raises(TinyR1VError, match=r"changes lm_head\.weight otherwise than the embedding"):
            merge_here(experts=[str(path)], method=QUICK)


def test_factors_tied_like_the_weights_are_one_change(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    """peft's `ensure_weight_tying`: the head's factors are those of the embedding, transposed."""
    embedding, change = embedding_factors(weights(tied_base)[EMBED], 3)
    a, b = embedding.values()
    path = adapter(tmp_path / "a", {"lm_head": (b.T.contiguous(), a.T.contiguous())}, embedding)
    merge_here(experts=[str(path)], method=SUM)
    assert torch.allclose(delta_of(tmp_path / "merged", tied_base, EMBED), 3.0 * change, atol=1e-6)
    assert not [line for line in report(tmp_path / "merged")["warnings"] if "head moves" in line]
