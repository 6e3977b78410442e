"""Weights on disk: names, format, atomicity, and the exported folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tinyr1v_ray.errors import CheckpointError, RunFolderError
from tinyr1v_ray.learner.export import write_export
from tinyr1v_ray.learner.full_weights import FullWeights
from tinyr1v_ray.learner.weight_files import write_safetensors
from tinyr1v_ray.models.loading import load_model
from tinyr1v_ray.models.qwen2_5_vl import Qwen25VL


def test_names_and_values_are_those_of_save_pretrained(model_folder: Path, tmp_path: Path) -> None:
    """The file that transformers wrote and ours hold the same tensors; the tied head is in neither."""
    weights = FullWeights(load_model(model_folder, Qwen25VL()), Qwen25VL(), 2, torch.float32, is_first=True)
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, weights.shapes, weights, {"version": "7"})
    ours, theirs = load_file(path), load_file(model_folder / "model.safetensors")
    assert ours.keys() == theirs.keys() and "lm_head.weight" not in ours
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"version": "7"}


def test_any_shape_and_type_is_written_as_float32(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "low": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    write_safetensors(tmp_path / "w", shapes, tensors.items(), {})
    loaded = load_file(tmp_path / "w")
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in tensors.items())
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}


def test_a_failed_write_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, {"a": (1,)}, [("a", torch.ones(1))], {})

    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", torch.zeros(1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match="No space left"):
        write_safetensors(path, {"a": (1,), "b": (1,)}, broken(), {})
    with pytest.raises(ValueError, match="is due"):
        write_safetensors(path, {"a": (1,)}, [("b", torch.ones(1))], {})
    assert load_file(path)["a"].item() == 1.0
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def write_zeros(path: Path) -> None:
    write_safetensors(path, {"a": (1,)}, [("a", torch.zeros(1))], {"format": "pt"})


def test_export_copies_all_but_weights_and_replaces_only_an_export(model_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in model_folder.iterdir():
        if path.suffix in (".json", ".jinja", ".safetensors"):
            (base / path.name).write_bytes(path.read_bytes())
    (base / "model.safetensors.index.json").write_text("{}")
    for _ in range(2):
        write_export(tmp_path / "out", base, write_zeros)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in base.iterdir()} - {"model.safetensors.index.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]
    (tmp_path / "notes").mkdir()
    with pytest.raises(RunFolderError, match="no model folder"):
        write_export(tmp_path / "notes", base, write_zeros)


def test_a_failed_export_leaves_the_one_before(model_folder: Path, tmp_path: Path) -> None:
    write_export(tmp_path / "out", model_folder, write_zeros)

    def fail(path: Path) -> None:
        path.write_bytes(b"x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match="No space left"):
        write_export(tmp_path / "out", model_folder, fail)
    assert np.array_equal(load_file(tmp_path / "out" / "model.safetensors")["a"].numpy(), [0.0])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
