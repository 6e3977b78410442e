"""Is it one base? Settings that no weight shows, names of bases, tied heads, and experts that are the base itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_merge_lora import write_adapter
from tiny_models import QUICK, Merge, Weights, composite, is_linear, report, weights, with_changes, write_tiny_model

from tinyr1v_ray.errors import TinyR1VError
from tinyr1v_ray.merging.checkpoint_folder import open_checkpoint
from tinyr1v_ray.merging.model_settings import differing, is_tied, known_settings, written_settings

AVERAGE = {"name": "average"}
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def edited(folder: Path, target: Path, edit: Callable[[dict], object]) -> Path:
    """A copy of a model whose config is another."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    edit(config)
    (target / "config.json").write_text(json.dumps(config))
    return target


# settings that no weight shows


def older_form(config: dict) -> None:
    """As transformers 4 wrote it: at the root, RoPE in two keys, a window that is not used."""
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text.pop("model_type"), text.pop("layer_types", None), text.pop("sliding_window", None)
    config.update(text)
    config["rope_theta"] = rope["rope_theta"]
    config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    config |= {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 1}


def test_the_two_forms_of_the_same_settings_are_one(
    tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    old = edited(experts[0], tmp_path / "old", older_form)
    assert "rope_scaling" in json.loads((old / "config.json").read_text())
    assert written_settings(open_checkpoint(old).config) == written_settings(open_checkpoint(tied_base).config)
    merge_here(experts=[str(old), str(experts[1])], method=AVERAGE)
    merged = report(tmp_path / "merged")
    assert not [line for line in merged["conflicts"] if "token_id" in line]
    assert merged["models"][1]["positions"]["rope.rope_theta"] == 1e6
    assert merged["models"][0]["positions"]["rope.mrope_section"] == [2, 3, 3]
    assert merged["models"][2]["token_ids"]["image_token_id"] == 500


def rope(**values: object) -> Callable[[dict], object]:
    return lambda config: config["text_config"]["rope_parameters"].update(values)


def after(first: Callable[[dict], object], **values: object) -> Callable[[dict], object]:
    def edit(config: dict) -> None:
        first(config)
        config.update(values)

    return edit


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "mrope_section": [2, 3, 3]}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (rope(rope_theta=1e4), "rope.rope_theta is 10000.0 where the base has 1000000.0"),
        (rope(mrope_section=[4, 2, 2]), "rope.mrope_section"),
        (rope(rope_type="linear", factor=2.0), r"rope.factor is 2.0 where the base has None"),
        (after(older_form, rope_theta=5e5), "rope.rope_theta is 500000.0"),
        (after(older_form, rope_scaling=YARN), "rope.factor is 4.0"),
        (lambda config: config["text_config"].update(use_sliding_window=True, sliding_window=64), "sliding"),
        (after(older_form, use_sliding_window=True, sliding_window=64, max_window_layers=0), "sliding"),
    ],
)
@pytest.mark.parametrize("which", ["expert", "base"])
def test_another_way_to_tell_positions_is_another_architecture(
    edit: Callable[[dict], object], words: str, which: str, tied_base: Path, experts: list[Path], merge_here: Merge,
    tmp_path: Path,
) -> None:  # fmt: skip
    if which == "expert":
        changed = edited(experts[0], tmp_path / "changed", edit)
        with pytest.raises(TinyR1VError, match=words):
            merge_here(experts=[str(changed), str(experts[1])], method=AVERAGE)
    else:
        changed = edited(tied_base, tmp_path / "changed", edit)
        with pytest.raises(TinyR1VError, match=words.partition(" is ")[0]):
            merge_here(base=str(changed), method=AVERAGE)


def test_other_special_tokens_are_told(experts: list[Path], merge_here: Merge, tmp_path: Path) -> None:
    def edit(config: dict) -> None:
        config["image_token_id"] = 503
        config["text_config"]["pad_token_id"] = 7

    changed = edited(experts[0], tmp_path / "changed", edit)
    merge_here(experts=[str(changed), str(experts[1])], method=AVERAGE)
    (line,) = [line for line in report(tmp_path / "merged")["conflicts"] if line.startswith("config.json: ")]
    assert str(changed) in line
    assert "image_token_id 503 (donor 500)" in line and "pad_token_id 7 (donor None)" in line


def test_a_model_type_that_transformers_does_not_know_is_taken_as_written() -> None:
    first = {"model_type": "of_next_year", "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}}
    second = {"text_config": {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}}}
    assert known_settings(first).positions == known_settings(second).positions
    assert known_settings(first | {"use_sliding_window": False, "sliding_window": 9}) == known_settings(first)
    assert differing(first, second | {"rope_theta": 1e4}, "positions") == {}
    assert is_tied(second | {"tie_word_embeddings": True}) and not is_tied(second)


# names of bases


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Org/base", False),
        ("BASE", False),
        ("/cache/models--Org--base/snapshots/0123abc", False),
        ("C/base/", False),
        (None, False),
        ("", False),
        ("Org/base-7B", True),
        ("/cache/models--Org--other/snapshots/0123abc", True),
    ],
)
def test_the_base_that_an_adapter_names(
    name: str | None, told: bool, tied_base: Path, merge_here: Merge, tmp_path: Path
) -> None:
    path = write_adapter(tied_base, tmp_path / "a", 1, {"base_model_name_or_path": name})
    merge_here(experts=[str(path)], method=AVERAGE)
    merged = report(tmp_path / "merged")
    assert merged["models"][1]["trained_from"] == (name or "")
    lines = [line for line in merged["conflicts"] if f"was trained from {name}" in line]
    assert len(lines) == told


def test_a_base_that_was_copied_goes_by_the_name_in_its_config_too(
    tied_base: Path, merge_here: Merge, tmp_path: Path
) -> None:
    copied = edited(tied_base, tmp_path / "copied", lambda config: config.update(_name_or_path="Org/Known-3B"))
    path = write_adapter(tied_base, tmp_path / "a", 1, {"base_model_name_or_path": "Org/Known-3B"})
    merge_here(base=str(copied), experts=[str(path)], method=AVERAGE)
    assert not [line for line in report(tmp_path / "merged")["conflicts"] if "was trained from" in line]


# tied heads


def test_tying_that_is_not_written_is_the_installed_transformers() -> None:
    for kind, tied in (("qwen2", False), ("qwen2_5_vl", False), ("gemma2", True), ("gemma3", True)):
        assert is_tied({"model_type": kind}) is tied, kind
    assert is_tied({"model_type": "qwen2_5_vl", "text_config": {"tie_word_embeddings": True}})
    assert is_tied({"model_type": "qwen2", "tie_word_embeddings": True})
    assert not is_tied({"model_type": "gemma2", "tie_word_embeddings": False})


def test_a_default_that_one_config_writes_is_no_difference() -> None:
    bare = {"model_type": "qwen2_5_vl", "text_config": {"hidden_size": 64}}
    full = {"model_type": "qwen2_5_vl", "hidden_size": 64, "rope_theta": 1e6, "image_token_id": 151655}
    assert differing(bare, full, "positions") == differing(bare, full, "token_ids") == {}
    assert differing(bare, full | {"rope_theta": 1e4}, "positions") == {"rope.rope_theta": (1e6, 1e4)}
    assert differing(full | {"image_token_id": 9}, bare, "token_ids") == {"image_token_id": (9, 151655)}


def only_the_head(tensors: Weights) -> Weights:
    return {(HEAD if name.endswith("embed_tokens.weight") else name): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("layout", [dict, composite])
@pytest.mark.parametrize("who", ["base", "expert", "both"])
def test_a_tied_checkpoint_that_keeps_only_the_head_is_whole(
    who: str, layout: Callable[[Weights], Weights], tied_base: Path, experts: list[Path], merge_here: Merge,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Merged as if the embedding had been kept, and written as the embedding, which every reader knows."""

    def changed(model: Path, name: str, change: bool) -> str:
        return str(with_changes(model, tmp_path / name, lambda w: layout(only_the_head(w) if change else dict(w))))

    models = [
        changed(tied_base, "base", who != "expert"),
        changed(experts[0], "e0", who != "base"),
        changed(experts[1], "e1", False),
    ]
    merge_here(base=models[0], experts=models[1:], method=QUICK, output=str(tmp_path / "heads"))
    merge_here(experts=[str(path) for path in experts[:2]], method=QUICK, output=str(tmp_path / "plain"))
    plain = layout(weights(tmp_path / "plain"))
    merged = weights(tmp_path / "heads")
    assert merged.keys() == plain.keys() and HEAD not in merged
    assert all(torch.equal(merged[name], plain[name]) for name in plain)


def test_an_untied_head_without_an_embedding_is_no_whole_model(
    untied_base: Path, merge_here: Merge, tmp_path: Path
) -> None:
    expert = with_changes(untied_base, tmp_path / "e", lambda w: {k: v for k, v in w.items() if k != EMBED})
    with pytest.raises(TinyR1VError, match=r"lacks model\.language_model\.embed_tokens"):
        merge_here(base=str(untied_base), experts=[str(expert)], method=AVERAGE)


# strangers and copies


def moved(model: Path, target: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    return with_changes(model, target, lambda w: {name: change(name, tensor).clone() for name, tensor in w.items()})


def test_a_stranger_in_the_layers_that_an_expert_changes(
    tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    """All attention is another model's, the rest the base's: most layers are the base's own."""
    other = weights(write_tiny_model(tmp_path / "other", tied=True, seed=77))
    stranger = moved(tied_base, tmp_path / "s", lambda name, w: other[name] if ".k_proj.weight" in name else w)
    with pytest.raises(TinyR1VError, match=r"expert 1 .* seems to come from another base"):
        merge_here(experts=[str(experts[0]), str(stranger)], method=AVERAGE)


def test_an_expert_of_few_layers_is_an_expert(
    tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    part = weights(experts[1])
    few = moved(tied_base, tmp_path / "few", lambda name, w: part[name] if ".k_proj.weight" in name else w)
    merge_here(experts=[str(experts[0]), str(few)], method=AVERAGE)
    assert not [line for line in report(tmp_path / "merged")["warnings"] if "rounding" in line]


def in_type(dtype: torch.dtype, stored: torch.dtype) -> Callable[[str, torch.Tensor], torch.Tensor]:
    return lambda _, tensor: tensor.to(dtype).to(stored)


FLOAT, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize(
    ("base_type", "expert_type", "stored", "name"),
    [
        (FLOAT, BRAIN, BRAIN, "bfloat16"),
        (FLOAT, HALF, HALF, "float16"),
        (FLOAT, BRAIN, FLOAT, "bfloat16"),  # loaded in one type, saved in another
        (BRAIN, FLOAT, FLOAT, "bfloat16"),  # the base is the rounded one
        (HALF, BRAIN, BRAIN, "bfloat16"),
        (BRAIN, HALF, HALF, "bfloat16"),  # both are
    ],
)
def test_the_base_in_another_type_is_no_expert(
    base_type: torch.dtype, expert_type: torch.dtype, stored: torch.dtype, name: str, tied_base: Path,
    experts: list[Path], merge_here: Merge, tmp_path: Path,
) -> None:  # fmt: skip
    base = moved(tied_base, tmp_path / "base", in_type(base_type, base_type))
    copy = moved(tied_base, tmp_path / "copy", in_type(expert_type, stored))
    with pytest.raises(TinyR1VError, match=f"expert 1 .* is nothing but the base rounded to {name}"):
        merge_here(base=str(base), experts=[str(experts[0]), str(copy)], method=QUICK)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize("types", [(FLOAT, BRAIN), (BRAIN, FLOAT), (FLOAT, FLOAT), (BRAIN, HALF)])
def test_training_is_told_from_rounding(
    types: tuple[torch.dtype, torch.dtype], scale: float, tied_base: Path, merge_here: Merge, tmp_path: Path
) -> None:
    """Also in steps below half a unit of the base's last place, kept in float32, and of some tensors alone. What
    bfloat16 has no room for is gone."""
    base = moved(tied_base, tmp_path / "base", in_type(types[0], types[0]))
    generator = torch.Generator().manual_seed(1)

    def trained(name: str, tensor: torch.Tensor) -> torch.Tensor:
        step = scale * torch.randn(tensor.shape, generator=generator)
        return (tensor.float() + (step if ".mlp." in name else 0)).to(types[1])

    expert = moved(base, tmp_path / "expert", trained)
    merge_here(base=str(base), experts=[str(expert)], method=AVERAGE)


def test_rounding_in_a_part_of_an_expert_is_told(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    """A vision tower that was not trained, in an expert that was saved in bfloat16."""
    generator = torch.Generator().manual_seed(1)

    def trained(name: str, tensor: torch.Tensor) -> torch.Tensor:
        step = 1e-3 * torch.randn(tensor.shape, generator=generator)
        return (tensor if name.startswith("visual.") else tensor + step).bfloat16()

    expert = moved(tied_base, tmp_path / "expert", trained)
    merge_here(experts=[str(expert)], method=AVERAGE)
    (line,) = [line for line in report(tmp_path / "merged")["warnings"] if "rounding" in line]
    assert "expert 0" in line and "bfloat16" in line


def test_a_copy_whose_embedding_alone_was_trained_is_an_expert(
    tied_base: Path, merge_here: Merge, tmp_path: Path
) -> None:
    """No linear layer differs by more than rounding; a tensor of another kind does."""
    base = weights(tied_base)
    assert sum(is_linear(name, tensor) for name, tensor in base.items()) > 10
    tensors = {name: (tensor + 0.02 if name == EMBED else tensor).bfloat16() for name, tensor in base.items()}
    shutil.copytree(tied_base, tmp_path / "expert")
    save_file(tensors, tmp_path / "expert" / "model.safetensors")
    merge_here(experts=[str(tmp_path / "expert")], method=AVERAGE)
    assert [line for line in report(tmp_path / "merged")["warnings"] if "rounding" in line]
