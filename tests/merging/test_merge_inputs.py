"""What a merge reads: every tensor once, of files that stay what they were."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from whole_matrix import merged_matrix

from tinyr1v_ray.config.merge import MergeConfig, MethodConfig
from tinyr1v_ray.errors import MergeError
from tinyr1v_ray.merging import plan as plan_room
from tinyr1v_ray.merging import tensor_values
from tinyr1v_ray.merging.local_run import run_in_threads
from tinyr1v_ray.merging.schedule import Bundle
from tinyr1v_ray.merging.session import BundleResult, PreparedMerge, Silent, prepare_merge, run_merge

MEMORY = 4 << 30
UP = "model.layers.0.mlp.up_proj.weight"
HOUR_AGO = time.time() - 3600
MATRIX = {"ties": {"name": "ties"}, "dare": {"name": "dare"}, "average": {"name": "average"}}


def write_models(folder: Path, rows: int, columns: int) -> list[Path]:
    """A base and two experts with one matrix, written an hour ago."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(rows, columns, generator=generator)
    models = []
    for index in range(3):
        model = folder / f"model_{index}"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps({"model_type": "qwen2", "tie_word_embeddings": True}))
        weight = base + (1e-2 * torch.randn(rows, columns, generator=generator) if index else 0)
        save_file({UP: weight}, model / "model.safetensors")
        os.utime(model / "model.safetensors", (HOUR_AGO, HOUR_AGO))
        models.append(model)
    return models


def prepared_merge(models: Sequence[Path], output: Path, **settings: object) -> PreparedMerge:
    tree = {"base": str(models[0]), "experts": [str(m) for m in models[1:]], "output": str(output), **settings}
    return prepare_merge(MergeConfig.model_validate(tree), models[0])


def plain_runner(
    prepared: PreparedMerge, folder: Path, bundles: Sequence[Bundle], done: Callable[[BundleResult], None]
) -> None:
    run_in_threads(prepared.plan, folder, bundles, done, num_threads=1, memory_bytes=MEMORY)


@pytest.mark.parametrize("held_bytes", [0, 1 << 30])
def test_a_merge_of_files_is_the_library_s_merge_of_matrices(
    held_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a matrix of several blocks, with masks drawn at random, held in memory or read again."""
    monkeypatch.setattr(plan_room, "_HELD_BYTES", held_bytes)
    models = write_models(tmp_path, 1300, 500)
    prepared = prepared_merge(models, tmp_path / "merged", methods=MATRIX)
    run_merge(prepared, plain_runner, Silent())
    base, *experts = (load_file(model / "model.safetensors")[UP] for model in models)
    (task,) = prepared.plan.tasks
    for name, method in MATRIX.items():
        vectors = [expert - base for expert in experts]
        delta = merged_matrix(vectors, MethodConfig.model_validate(method), task.name)
        merged = load_file(tmp_path / "merged" / name / "model.safetensors")[UP]
        assert torch.equal(merged, base + delta), name


def count_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that every read of tensor data adds its size to."""
    sizes: list[int] = []
    read = os.preadv

    def counting(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        sizes.append(read(descriptor, buffers, offset))
        return sizes[-1]

    monkeypatch.setattr(tensor_values.os, "preadv", counting)
    return sizes


def test_every_tensor_is_read_once_for_all_methods(
    tied_base: Path, experts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {
        "amm": {"amm": {"steps": 2}}, "wudi": {"name": "wudi", "amm": {"steps": 2}}, "iso_c": {"name": "iso_c"},
        "ties": {"name": "ties"}, "dense_ties": {"name": "ties", "density": 0.7}, "dare": {"name": "dare"},
        "ram_plus": {"name": "ram_plus"}, "resmerge": {"name": "resmerge"}, "swudi": {"name": "swudi"},
    }  # fmt: skip
    models = [tied_base, *experts]
    prepared = prepared_merge(models, tmp_path / "merged", methods=methods)
    sizes = count_bytes(monkeypatch)
    run_merge(prepared, plain_runner, Silent())
    stored = sum(t.nbytes for model in models for t in load_file(model / "model.safetensors").values())
    assert sum(sizes) == stored


@pytest.mark.parametrize(
    ("name", "setting", "num_reads"), [("ties", "density", 3), ("ram_plus", "threshold", 2), ("ram", "threshold", 1)]
)
def test_tensors_too_large_to_hold_are_read_again_once_for_all_methods(
    name: str, setting: str, num_reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_room, "_HELD_BYTES", 0)
    methods = {str(i): {"name": name, setting: value} for i, value in enumerate((0.1, 0.2, 0.5))}
    prepared = prepared_merge(write_models(tmp_path, 1300, 500), tmp_path / "merged", methods=methods)
    sizes = count_bytes(monkeypatch)
    run_merge(prepared, plain_runner, Silent())
    assert sum(sizes) == num_reads * 3 * 1300 * 500 * 4


# inputs that change


def rewritten(file: Path) -> None:
    """Other values in the same file."""
    save_file({name: -tensor for name, tensor in load_file(file).items()}, file)


def replaced(file: Path) -> None:
    """Another file of the same size under the name."""
    other = file.with_suffix(".new")
    save_file({name: -tensor for name, tensor in load_file(file).items()}, other)
    other.replace(file)


def removed(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("moment", ["before", "between", "after"])
@pytest.mark.parametrize("what", [rewritten, replaced, removed])
@pytest.mark.parametrize("model", [0, 2])
def test_an_input_that_changes_is_an_error_that_names_it(
    moment: str, what: Callable[[Path], None], model: int, tmp_path: Path
) -> None:
    """Before anything is read, when all is merged and nothing hashed, and when all is done but to say so."""
    models = write_models(tmp_path, 40, 30)
    file = models[model] / "model.safetensors"

    def runner(
        prepared: PreparedMerge, folder: Path, bundles: Sequence[Bundle], done: Callable[[BundleResult], None]
    ) -> None:
        for now, group in (
            ("before", []),
            ("between", [bundle for bundle in bundles if bundle.tasks]),
            ("after", [bundle for bundle in bundles if bundle.file]),
        ):
            plain_runner(prepared, folder, group, done)
            if now == moment:
                what(file)

    with pytest.raises(MergeError, match=rf"{file} was changed, replaced or removed"):
        run_merge(prepared_merge(models, tmp_path / "merged", method={"name": "average"}), runner, Silent())
    assert not (tmp_path / "merged").exists() and not (tmp_path / ".merged.partial").exists()


def test_an_adapter_that_changes_is_an_error(tmp_path: Path) -> None:
    models = write_models(tmp_path, 40, 30)
    shutil.rmtree(models[2])
    models[2].mkdir()
    (models[2] / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    name = f"base_model.model.{UP.removesuffix('.weight')}"
    factors = {f"{name}.lora_A.weight": torch.randn(2, 30), f"{name}.lora_B.weight": torch.randn(40, 2)}
    file = models[2] / "adapter_model.safetensors"
    save_file(factors, file)
    os.utime(file, (HOUR_AGO, HOUR_AGO))
    prepared = prepared_merge(models, tmp_path / "merged", method={"amm": {"steps": 2}})
    replaced(file)
    with pytest.raises(MergeError, match=r"adapter_model\.safetensors was changed"):
        run_merge(prepared, plain_runner, Silent())
