"""Merged folders: complete for transformers, sharded where asked, accounted for, with the donor's files."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_models import (
    QUICK,
    Merge,
    Weights,
    is_linear,
    report,
    weights,
    with_changes,
    write_expert,
)


def test_report_accounts_for_every_tensor(merge_here: Merge, tmp_path: Path, tied_base: Path) -> None:
    summary = merge_here(method={"amm": {"steps": 40}})
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
    merge_here(experts=[str(experts[0]), str(experts[1]), str(third)], method=QUICK)
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
    merge_here(base=str(untied_base), experts=[str(e) for e in experts], method={"name": "average"})
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
    merge_here(experts=[str(expert), str(experts[1])], method={"name": "average"})
    assert "lm_head.weight" not in weights(tmp_path / "merged")
    found = report(tmp_path / "merged")
    assert found["counts"]["refused"] == 1
    assert found["refused"][0]["name"] == "lm_head.weight"


def test_sharded_inputs_and_outputs(tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    sharded = tmp_path / "sharded"
    shutil.copytree(experts[0], sharded)
    (sharded / "model.safetensors").unlink()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(experts[0])
    model.save_pretrained(sharded, max_shard_size="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    merge_here(output=str(tmp_path / "plain"), method={"name": "ties"})
    merge_here(
        output=str(tmp_path / "split"), experts=[str(sharded), *map(str, experts[1:])], method={"name": "ties"},
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

    merge_here(output=str(tmp_path / "plain"), method=QUICK)
    monkeypatch.setattr(session, "make_plan", lambda *a, **k: make_plan(*a, **(k | {"shard_bytes": 100_000})))
    merge_here(method=QUICK)
    folder = tmp_path / "merged"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    plain = weights(tmp_path / "plain")
    assert index["metadata"]["total_size"] == sum(t.numel() * 4 for t in plain.values())
    for name, shard in index["weight_map"].items():
        with safe_open(folder / shard, "pt") as file:
            assert torch.equal(file.get_tensor(name), plain[name])
    Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)


def test_an_expert_equal_to_the_base_is_reported(
    tied_base: Path, experts: list[Path], merge_here: Merge, tmp_path: Path
) -> None:
    def only_language(w: Weights) -> Weights:
        base = weights(tied_base)
        return {name: base[name] if name.startswith("visual.") else tensor for name, tensor in w.items()}

    half = with_changes(experts[1], tmp_path / "half", only_language)
    summary = merge_here(experts=[str(experts[0]), str(tied_base), str(half)], method={"name": "average"})
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
        merge_here(experts=[str(other), str(experts[1])], donor=donor, output=str(output), method={"name": "average"})
        assert (output / "chat_template.jinja").read_text() == text
        assert any("chat_template.jinja" in line for line in report(output)["conflicts"])


def test_only_what_is_true_of_the_merged_model_is_copied(tied_base: Path, merge_here: Merge, tmp_path: Path) -> None:
    donor = write_expert(tied_base, tmp_path / "donor", seed=1)
    for name in ("vocab.json", "merges.txt", "preprocessor_config.json", "trainer_state.json", "scores.json"):
        (donor / name).write_text("{}")
    merge_here(experts=[str(donor)], donor="0", method={"name": "average"})
    found = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"vocab.json", "merges.txt", "preprocessor_config.json", "tokenizer.json", "config.json"} <= found
    assert not {"trainer_state.json", "scores.json"} & found
