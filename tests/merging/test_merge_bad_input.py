"""Every fault of the input ends in one line and exit code 2, before or without an output folder."""

from __future__ import annotations

import argparse
import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import shard, write_tiny_model

from tinyr1v_ray.cli import merge
from tinyr1v_ray.cli.main import main
from tinyr1v_ray.config.merge import WUDI, AmmConfig, MethodConfig
from tinyr1v_ray.errors import TinyR1VError


def command(*arguments: object) -> int:
    """What `tinyr1v merge` does with these arguments."""
    parser = argparse.ArgumentParser()
    merge.add_parser(parser.add_subparsers())
    options = parser.parse_args(["merge", *map(str, arguments)])
    return options.run(options)


class Case:
    """A base, two experts that a test may damage, and an output that must stay untouched."""

    def __init__(self, base: Path, experts: list[Path], folder: Path) -> None:
        self.base = folder / "base"
        self.experts = [folder / "e0", folder / "e1"]
        shutil.copytree(base, self.base)
        for source, target in zip(experts, self.experts, strict=False):
            shutil.copytree(source, target)
        self.output = folder / "out" / "merged"

    def change(self, folder: Path, change: Callable[[dict], dict]) -> None:
        tensors = change(load_file(folder / "model.safetensors"))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def edit_json(self, path: Path, **values: object) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    def run(self, *extra: object) -> int:
        arguments = ["--base", self.base, "--method", "average", "--output", self.output]
        for expert in self.experts:
            arguments += ["--expert", expert]
        return command(*arguments, *extra)

    def refused(self, *words: str, extra: tuple[object, ...] = ()) -> str:
        with pytest.raises(TinyR1VError) as caught:
            self.run(*extra)
        text = str(caught.value)
        assert caught.value.exit_code == 2
        assert "\n" not in text
        for word in words:
            assert word in text, text
        assert not self.output.exists()
        parent = self.output.parent
        assert not parent.exists() or not list(parent.iterdir()), "a working folder was left behind"
        return text


@pytest.fixture
def case(tied_base: Path, experts: list[Path], tmp_path: Path) -> Case:
    return Case(tied_base, experts, tmp_path)


UP = "model.layers.1.mlp.up_proj.weight"


def test_the_case_itself_merges(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.run() == 0
    assert "merged model" in capsys.readouterr().out
    assert sorted(p.name for p in case.output.parent.iterdir()) == ["merged"]


def test_no_expert(case: Case) -> None:
    case.experts = []
    case.refused("--expert")


@pytest.mark.parametrize("which", ["base", "expert"])
def test_missing_folder(which: str, case: Case, tmp_path: Path) -> None:
    if which == "base":
        case.base = tmp_path / "nowhere"
    else:
        case.experts[1] = tmp_path / "nowhere"
    case.refused("nowhere")


def test_missing_weights_and_pickles(case: Case) -> None:
    (case.experts[0] / "model.safetensors").unlink()
    case.refused(str(case.experts[0]), "model.safetensors")
    (case.experts[0] / "pytorch_model.bin").write_bytes(b"x")
    case.refused("safetensors", "pickled")


def test_missing_shard(case: Case) -> None:
    shard(case.experts[1])
    (case.experts[1] / "model-00002-of-00002.safetensors").unlink()
    case.refused("model-00002-of-00002.safetensors", "missing")


def test_missing_index_entry(case: Case) -> None:
    index = shard(case.experts[1])
    content = json.loads(index.read_text())
    del content["weight_map"][UP]
    index.write_text(json.dumps(content))
    case.refused(UP, "no entry")


def test_index_entry_without_tensor(case: Case) -> None:
    index = shard(case.experts[1])
    content = json.loads(index.read_text())
    content["weight_map"]["model.layers.9.x"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    case.refused("model.layers.9.x")


def test_missing_tensor(case: Case) -> None:
    case.change(case.experts[1], lambda w: {k: v for k, v in w.items() if k != UP})
    case.refused("up_proj", "lacks", str(case.experts[1]))


def test_extra_tensor(case: Case) -> None:
    case.change(case.experts[1], lambda w: w | {"model.layers.7.mlp.up_proj.weight": w[UP].clone()})
    case.refused("layers.7", "the base lacks")


def test_other_shape(case: Case) -> None:
    case.change(case.experts[0], lambda w: w | {UP: w[UP][:-1].clone()})
    case.refused("up_proj", "shape", "[95, 64]", "[96, 64]")


def test_other_vocabulary_size(case: Case) -> None:
    name = "model.embed_tokens.weight"
    case.change(case.experts[0], lambda w: w | {name: w[name][:-12].clone()})
    case.refused("vocabulary of 500", "512")


def test_other_vocabulary(case: Case) -> None:
    tokenizer = json.loads((case.experts[1] / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["t10"], vocab["t11"] = vocab["t11"], vocab["t10"]
    case.edit_json(case.experts[1] / "tokenizer.json", model=tokenizer["model"])
    case.refused("vocabulary", "2 tokens differ", "'t10'")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_dtype_nobody_can_merge(dtype: torch.dtype, case: Case) -> None:
    case.change(case.experts[0], lambda w: w | {UP: w[UP].to(dtype)})
    case.refused("up_proj", str(case.experts[0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["base", "expert"])
def test_non_finite_is_named(value: float, where: str, case: Case) -> None:
    folder = case.base if where == "base" else case.experts[1]

    def poison(w: dict) -> dict:
        w[UP][3, 5] = value
        return w

    case.change(folder, poison)
    owner = "the base" if where == "base" else "expert 1"
    case.refused("NaN or Inf", "layers.1.mlp.up_proj", owner, extra=("method.amm.steps=2", "method.name=amm"))
    case.refused("NaN or Inf", "layers.1.mlp.up_proj", owner, extra=("method.name=ties",))


def test_a_result_too_large_for_its_dtype(case: Case) -> None:
    for folder in (case.base, *case.experts):
        case.change(folder, lambda w: w | {UP: torch.full_like(w[UP], 2e38)})
    case.change(case.experts[0], lambda w: w | {UP: torch.full_like(w[UP], 2.9e38)})
    case.refused("up_proj", "not finite", extra=("method.name=task_arithmetic", "method.scale=5"))


def test_expert_of_another_base(case: Case, untied_base: Path) -> None:
    shutil.rmtree(case.experts[1])
    write_tiny_model(case.experts[1], tied=True, seed=99)
    text = case.refused("expert 1", "another base")
    assert "min_cosine" in text


def test_an_outlier_among_experts(case: Case) -> None:
    """Every expert is within the limits, but one is far further from the base than the other."""
    base = load_file(case.base / "model.safetensors")

    def moved(scale: float, seed: int) -> Callable[[dict], dict]:
        generator = torch.Generator().manual_seed(seed)
        return lambda _: {k: t * (1 + scale * torch.randn(t.shape, generator=generator)) for k, t in base.items()}

    case.change(case.experts[0], moved(1e-3, 1))
    case.change(case.experts[1], moved(0.3, 2))
    case.refused("expert 1", "outlier")


def test_other_architecture(case: Case) -> None:
    text = json.loads((case.experts[0] / "config.json").read_text())["text_config"]
    case.edit_json(case.experts[0] / "config.json", text_config=text | {"num_attention_heads": 8})
    case.refused("num_attention_heads", "8", "4")


def test_tied_and_untied(case: Case) -> None:
    case.edit_json(case.experts[0] / "config.json", tie_word_embeddings=False)
    case.refused("tie_word_embeddings")


def test_a_tied_head_that_is_another(case: Case) -> None:
    name = "model.embed_tokens.weight"
    case.change(case.experts[0], lambda w: w | {"lm_head.weight": w[name] + 1e-3})
    case.refused("lm_head.weight", "differs from its embedding")


def test_both_layouts_at_once(case: Case) -> None:
    case.change(case.experts[0], lambda w: w | {UP.replace("model.", "model.language_model.", 1): w[UP].clone()})
    case.refused("two layouts", UP)


def test_existing_output(case: Case) -> None:
    case.output.mkdir(parents=True)
    (case.output / "keep").write_text("mine")
    with pytest.raises(TinyR1VError, match="exists") as caught:
        case.run()
    assert caught.value.exit_code == 2
    assert [p.name for p in case.output.parent.iterdir()] == ["merged"]
    assert (case.output / "keep").read_text() == "mine"


def test_an_output_below_a_file(case: Case) -> None:
    file = case.output.parent.parent / "file"
    file.write_text("mine")
    case.output = file / "models" / "merged"
    case.refused("cannot be made", f"{file} is no folder")


def test_an_expert_twice(case: Case, tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(case.experts[0])
    for again in (case.experts[0], tmp_path / "again"):
        case.refused(str(again), "each is merged once", extra=("--expert", again))


def test_too_little_disk(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    case.refused("free", "output")


@pytest.mark.parametrize("damage", ["length", "json", "cut", "offsets", "size", "overlap", "empty"])
def test_corrupt_header(damage: str, case: Case) -> None:
    path = case.experts[1] / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    if damage == "offsets":
        header[UP]["data_offsets"][1] += 10**9
    if damage == "size":
        header[UP]["shape"][0] += 1
    if damage == "overlap":
        header[UP]["data_offsets"] = header["model.layers.0.mlp.up_proj.weight"]["data_offsets"]
    text = json.dumps(header).encode()
    broken = {
        "length": (2**60).to_bytes(8, "little") + raw[8:],
        "json": raw[:8] + b"{" * length + raw[8 + length :],
        "cut": raw[: len(raw) // 2],
        "empty": b"",
    }
    path.write_bytes(broken.get(damage, len(text).to_bytes(8, "little") + text + raw[8 + length :]))
    case.refused(str(path))


def test_broken_config(case: Case) -> None:
    (case.experts[1] / "config.json").write_text("{")
    case.refused("config.json", "JSON")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--method", "magic"), ("magic", "task_arithmetic")),
        (("method.amm.step=3",), ("method.amm.step", "steps")),
        (("method.density=2",), ("method.density",)),
        (("method.density=0.3",), ("density", "only ties")),
        (("--method", "ram", "method.rescale=0.3"), ("rescale", "only ram_plus")),
        (("--method", "resmerge", "method.beta_min=2"), ("beta_min", "beta_max")),
        (("--method", "resmerge", "method.head_rank=0"), ("method.head_rank",)),
        (("--method", "swudi", "method.keep=0"), ("method.keep",)),
        (("method.amm.steps=3",), ("amm", "average")),
        (("method.solver=spectral",), ("solver",)),
        (("--method", "amm", "method.solver=spectral"), ("projection", "none")),
        (("method.rounding=stochastic",), ("rounding", "bfloat16")),
        (("job.num_workers=-1",), ("num_workers",)),
        (("--output-dtype", "int8"), ("output_dtype",)),
        (("--donor", "5"), ("donor",)),
        (("nonsense",), ("nonsense",)),
        (("job.memory_gib=0.00001",), ("GiB", "job.memory_gib")),
    ],
)
def test_settings(extra: tuple[str, ...], words: tuple[str, ...], case: Case) -> None:
    case.refused(*words, extra=extra)


def test_missing_settings(case: Case, tmp_path: Path) -> None:
    with pytest.raises(TinyR1VError, match="base"):
        command("--expert", case.experts[0], "--output", case.output)
    with pytest.raises(TinyR1VError, match="does not exist"):
        command("--config", tmp_path / "none.yaml")


# adapters


def adapter(folder: Path, config: dict, tensors: dict) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2} | config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


PREFIX = "base_model.model." + UP.removesuffix(".weight")
A, B = torch.randn(2, 64), torch.randn(96, 2)


@pytest.mark.parametrize(
    ("config", "tensors", "word"),
    [
        ({"peft_type": "IA3"}, {f"{PREFIX}.lora_A.weight": A, f"{PREFIX}.lora_B.weight": B}, "IA3"),
        ({"use_dora": True}, {f"{PREFIX}.lora_A.weight": A, f"{PREFIX}.lora_B.weight": B}, "use_dora"),
        ({}, {f"{PREFIX}.lora_A.weight": A}, "only lora_A"),
        ({}, {f"{PREFIX}.lora_A.weight": A, f"{PREFIX}.lora_B.weight": B.T.contiguous()}, "factors"),
        ({}, {f"{PREFIX}.lora_magnitude_vector": B, f"{PREFIX}.lora_A.weight": A}, "lora_magnitude_vector"),
        ({}, {"base_model.model.other.lora_A.weight": A, "base_model.model.other.lora_B.weight": B}, "the base lacks"),
        ({}, {f"{PREFIX}.lora_A.weight": A[:, :9].clone(), f"{PREFIX}.lora_B.weight": B}, "shape"),
        ({}, {f"{PREFIX}.lora_A.weight": A * float("nan"), f"{PREFIX}.lora_B.weight": B}, "NaN"),
    ],
)
def test_adapters(config: dict, tensors: dict, word: str, case: Case) -> None:
    adapter(case.experts[1], config, tensors)
    case.refused(word)


def test_plan_writes_nothing(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.run("--plan", "method.name=amm") == 0
    text = capsys.readouterr().out
    for word in ("language", "gram form", "averaged", "arithmetic", "memory", "free space needed", "the merge"):
        assert word in text
    assert not case.output.parent.exists()


def test_what_wudi_leaves_open_is_wudi_s_and_can_be_read_back() -> None:
    method = MethodConfig.model_validate({"name": "wudi", "amm": {"steps": 7}})
    assert method.amm == WUDI.model_copy(update={"steps": 7})
    assert MethodConfig.model_validate(method.model_dump(mode="json")) == method
    assert AmmConfig(dtype=torch.float64).dtype == "float64"


def test_the_command_line_prints_one_line(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["merge", "--base", str(case.base), "--expert", str(case.experts[0]), "--output", str(case.output)]
    assert main([*arguments, "--method", "magic"]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1 and "magic" in captured.err
    assert not captured.out


def test_a_cluster_that_nobody_answers_for(case: Case) -> None:
    case.refused(
        "nobody answers at 127.0.0.1:1", "job.ray_address", extra=("--num-workers", 1, "job.ray_address=127.0.0.1:1")
    )
