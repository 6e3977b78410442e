"""What lies in a folder: one checkpoint, whole files, each tensor once. All else is refused in its own words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import Merge, shard, weights

from tinyr1v_ray.errors import CheckpointError, TinyR1VError
from tinyr1v_ray.files.safetensors_file import read_header
from tinyr1v_ray.merging.checkpoint_folder import INDEX, SINGLE, open_checkpoint

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 7516192768\n"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tied_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tied_base, tmp_path / "model"))


def said(folder: Path) -> str:
    """The one line that opening the folder ends in."""
    with pytest.raises(TinyR1VError) as caught:
        open_checkpoint(folder)
    text = str(caught.value)
    assert "\n" not in text and text.count("; ") == 2, text
    return text


def test_a_file_and_the_shards_of_an_index_are_two_checkpoints(folder: Path) -> None:
    tensors = load_file(folder / SINGLE)
    shard(folder)
    save_file({name: -tensor for name, tensor in tensors.items()}, folder / SINGLE)
    assert f"holds two checkpoints, {SINGLE} and the 2 shards of {INDEX}" in said(folder)


@pytest.mark.parametrize("gone", [(FIRST,), (FIRST, SECOND)])
def test_an_index_of_shards_that_are_gone_is_stale_beside_a_whole_file(gone: tuple[str, ...], folder: Path) -> None:
    shutil.copy(folder / SINGLE, folder / "kept")
    shard(folder)
    (folder / "kept").rename(folder / SINGLE)
    for name in gone:
        (folder / name).unlink()
    text = said(folder)
    assert f"{INDEX} is stale: it names {FIRST}, which is not there" in text and "remove the index" in text


def test_an_index_that_names_the_file_itself_is_one_checkpoint(folder: Path) -> None:
    names = load_file(folder / SINGLE)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, SINGLE)}))
    assert len(open_checkpoint(folder).tensors) == len(names)


def test_an_adapter_beside_a_full_model_is_two_models(
    tied_base: Path, merge_here: Merge, experts: list[Path], tmp_path: Path
) -> None:
    both = Path(shutil.copytree(experts[0], tmp_path / "both"))
    (both / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(TinyR1VError, match=r"holds an adapter .* and a full model's weights"):
        merge_here(experts=[str(both)])


def test_a_tensor_in_two_shards(folder: Path) -> None:
    shard(folder)
    twice = next(iter(load_file(folder / FIRST)))
    save_file(load_file(folder / SECOND) | {twice: load_file(folder / FIRST)[twice]}, folder / SECOND)
    assert f"{twice} lies in {FIRST} and in {SECOND}" in said(folder)


def test_an_index_that_names_another_shard(folder: Path) -> None:
    index = shard(folder)
    content = json.loads(index.read_text())
    moved = next(name for name, file in content["weight_map"].items() if file == FIRST)
    content["weight_map"][moved] = SECOND
    index.write_text(json.dumps(content))
    assert f"{INDEX} names {SECOND} for {moved}, which is in {FIRST}" in said(folder)


@pytest.mark.parametrize(("content", "words"), [(POINTER, "git lfs pull"), (b"", "is empty")])
@pytest.mark.parametrize("file", [SINGLE, FIRST, INDEX, "config.json"])
def test_a_file_without_content_is_called_what_it_is(content: bytes, words: str, file: str, folder: Path) -> None:
    if file in (FIRST, INDEX):
        shard(folder)
    (folder / file).write_bytes(content)
    text = said(folder)
    assert text.startswith(f"{folder / file} is ") and words in text


@pytest.mark.parametrize("file", ["tokenizer.json", "chat_template.jinja", "tokenizer.model", "qwen.tiktoken"])
def test_a_pointer_among_the_files_that_are_copied(file: str, folder: Path, merge_here: Merge, tmp_path: Path) -> None:
    """Found before anything is merged."""
    (folder / file).write_bytes(POINTER)
    with pytest.raises(TinyR1VError, match=rf"{file} is a git-LFS pointer"):
        merge_here(base=str(folder))
    assert not (tmp_path / "merged").exists() and not (tmp_path / ".merged.partial").exists()


def test_a_file_that_cannot_be_read_names_the_reason(tmp_path: Path) -> None:
    """What is wrong with the content is no failure to read it, though a CheckpointError is an OSError."""
    with pytest.raises(CheckpointError, match=r"cannot be read \(No such file or directory\)"):
        read_header(tmp_path / "none.safetensors")
    (tmp_path / "short.safetensors").write_bytes(b"1234567")
    with pytest.raises(CheckpointError, match="in a file of 7; it is cut short"):
        read_header(tmp_path / "short.safetensors")


@pytest.mark.parametrize("rewrite", [lambda folder: None, shard])
def test_one_file_or_several_hold_the_same(rewrite: Callable[[Path], object], folder: Path, tied_base: Path) -> None:
    rewrite(folder)
    assert {ref.name for ref in open_checkpoint(folder).tensors.values()} == set(weights(tied_base))
