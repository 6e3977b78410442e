"""Model folders that are incomplete or put together from parts that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tinyr1v_ray.data.model_folder import check_context, find_model_folder, is_hub_name, resolve_model_folder
from tinyr1v_ray.errors import ModelError


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_whole_folder_is_resolved_to_an_absolute_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert resolve_model_folder("model") == folder


@pytest.mark.parametrize(
    ("missing", "part"),
    [
        ("config.json", "configuration"),
        ("tokenizer.json", "tokenizer"),
        ("processor_config.json", "processor"),
        ("model.safetensors", "weights"),
    ],
)
def test_missing_parts_are_named(folder: Path, missing: str, part: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=rf"has no {part}; it holds .*{missing}"):
        resolve_model_folder(str(folder))


def test_names_that_are_neither_folder_nor_hub_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no folder"):
        resolve_model_folder(str(tmp_path / "nothing" / "here"))


def test_what_would_lie_in_runs_or_models_is_no_hub_name() -> None:
    """A specialist that was not trained yet is not asked of the hub."""
    for path in ("runs/math", "models/Qwen2.5-VL-3B-Instruct"):
        assert not is_hub_name(path)
        with pytest.raises(ModelError, match="is no folder"):
            find_model_folder(path)
    assert is_hub_name("Qwen/Qwen2.5-VL-3B-Instruct") and find_model_folder("Qwen/Qwen2.5-VL-3B-Instruct") is None


def test_a_hub_name_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="taken for a hub name"):
        resolve_model_folder("nobody-here/no-such-model")


def test_an_embedding_with_fewer_rows_than_tokens(folder: Path) -> None:
    save_file({"model.embed_tokens.weight": np.zeros((261, 4), np.float32)}, str(folder / "model.safetensors"))
    edit_json(folder / "config.json", vocab_size=261)
    with pytest.raises(ModelError, match=r"has 261 embedding rows but its tokenizer goes up to id 261"):
        resolve_model_folder(str(folder))


def test_a_configuration_that_disagrees_with_the_weights(folder: Path) -> None:
    edit_json(folder / "config.json", vocab_size=300)
    with pytest.raises(ModelError, match="declares vocab_size 300 but its embedding has 272 rows"):
        resolve_model_folder(str(folder))


def test_nested_text_configurations_are_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] = {"vocab_size": config.pop("vocab_size")}
    (folder / "config.json").write_text(json.dumps(config))
    assert resolve_model_folder(str(folder)) == folder
    edit_json(folder / "config.json", text_config={"vocab_size": 271})
    with pytest.raises(ModelError, match="vocab_size 271"):
        resolve_model_folder(str(folder))


def test_another_models_image_token(folder: Path) -> None:
    edit_json(folder / "config.json", image_token_id=151655)
    with pytest.raises(ModelError, match=r"image_token_id 151655 but its tokenizer has <\|image_pad\|> at 261"):
        resolve_model_folder(str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "\0"])
def test_files_that_are_no_json_objects(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match=name):
        resolve_model_folder(str(folder))


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_truncated_weights(folder: Path, length: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"weights cannot be read: .*model\.safetensors"):
        resolve_model_folder(str(folder))


def test_a_pointer_of_git_lfs_in_place_of_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelError, match=r"model\.safetensors is a git-LFS pointer"):
        resolve_model_folder(str(folder))


def test_sharded_weights_are_read_through_their_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-2.safetensors")
    save_file({"lm.weight": np.zeros(3, np.float32)}, str(folder / "model-1.safetensors"))
    index = {"weight_map": {"lm.weight": "model-1.safetensors", "model.embed_tokens.weight": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert resolve_model_folder(str(folder)) == folder
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model-1\.safetensors"):
        resolve_model_folder(str(folder))


def test_weights_of_another_kind_of_model(folder: Path) -> None:
    save_file({"something.weight": np.zeros(3, np.float32)}, str(folder / "model.safetensors"))
    with pytest.raises(ModelError, match=r"no tensor named \*\.embed_tokens\.weight"):
        resolve_model_folder(str(folder))


def test_tokenizers_in_two_files_are_read_with_their_added_tokens(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (folder / "merges.txt").write_text("")
    added = {str(entry["id"]): {"content": entry["content"]} for entry in tokenizer["added_tokens"]}
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder=added)
    (folder / "tokenizer.json").unlink()
    assert resolve_model_folder(str(folder)) == folder


@pytest.mark.parametrize("nested", [False, True])
def test_a_context_longer_than_the_models(folder: Path, nested: bool) -> None:
    check_context(folder, 10**6)
    positions = {"max_position_embeddings": 512}
    edit_json(folder / "config.json", **({"text_config": positions} if nested else positions))
    check_context(folder, 512)
    with pytest.raises(ModelError, match=r"model\.max_length is 513 but the model in .* has 512 positions"):
        check_context(folder, 513)


def test_the_shipped_miniature_is_whole() -> None:
    assert (resolve_model_folder("miniature") / "config.json").is_file()
