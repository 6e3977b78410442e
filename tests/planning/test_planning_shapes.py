"""Shapes: parameters counted from numbers of a config.json equal what is stored."""

import json
import math
import struct
from dataclasses import replace

import pytest

from tinyr1v_ray.errors import ModelError
from tinyr1v_ray.merging.names import canonical_name
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.planning import shapes
from tinyr1v_ray.planning.shapes import KNOWN, find_shape, shape_from_config


def stored_shapes(path):
    """canonical name -> shape, from the header of a safetensors file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {canonical_name(name): tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def test_the_miniature_tensor_by_tensor():
    stored = stored_shapes(base_model_folder() / "model.safetensors")
    shape = find_shape("miniature")
    assert {canonical_name(name): dims for name, dims in shape.tensors} == stored
    assert shape.num_parameters == sum(math.prod(dims) for dims in stored.values())


def test_published_models_have_the_published_number_of_parameters():
    """The sizes of their safetensors: 7,509,245,952 and 16,584,333,312 bytes in bfloat16."""
    assert find_shape("Qwen/Qwen2.5-VL-3B-Instruct").num_parameters * 2 == 7_509_245_952
    assert find_shape("Qwen/Qwen2.5-VL-7B-Instruct").num_parameters * 2 == 16_584_333_312


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", 2_208_985_600),
        ("Qwen/Qwen3-VL-2B-Instruct", 2_127_532_032),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("Qwen/Qwen2.5-3B-Instruct", 3_085_938_688),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B", 4_022_468_096),
    ],
)
def test_published_models_have_the_number_of_parameters_that_the_hub_says(name, num_parameters):
    shape = find_shape(name)
    assert shape.num_parameters == num_parameters
    assert bool(shape.num_vision_parameters) == bool(shape.vision.max_tokens(10**6)) == ("VL" in name)


def test_cache_and_pixels_of_3b_by_hand():
    shape = find_shape("Qwen/Qwen2.5-VL-3B-Instruct")
    assert shape.kv_bytes_per_token(2) == 2 * 36 * 2 * 128 * 2
    assert shape.vision.pixels_per_token == 28 * 28


def test_the_old_flat_config_means_the_same_as_the_nested_one():
    """As published for 3B: text keys at the top, `in_chans`, and a vision section that leaves defaults out."""
    flat = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "hidden_size": 2048, "num_hidden_layers": 36, "intermediate_size": 11008, "num_attention_heads": 16,
        "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True, "max_position_embeddings": 128000,
        "vision_config": {"hidden_size": 1280, "in_chans": 3, "out_hidden_size": 2048, "spatial_patch_size": 14},
    }  # fmt: skip
    name = "Qwen/Qwen2.5-VL-3B-Instruct"
    assert shape_from_config(name, flat) == find_shape(name)
    nested = {
        "architectures": flat["architectures"],
        "tie_word_embeddings": True,
        "vision_config": flat["vision_config"],
    }
    text = {key: value for key, value in flat.items() if key not in nested}
    assert shape_from_config(name, {**nested, "text_config": text}) == find_shape(name)


def test_a_folder_that_is_to_be_made_has_the_shapes_of_the_size_in_its_name():
    assert find_shape("runs/tiny_r1v_3b") == find_shape("Qwen/Qwen2.5-VL-3B-Instruct")
    assert find_shape("models/Qwen2.5-VL-7B-Instruct") == find_shape("Qwen/Qwen2.5-VL-7B-Instruct")
    assert find_shape("runs/mine", "miniature").num_parameters == find_shape("miniature").num_parameters


def test_what_was_counted_is_kept_and_read_as_it_was(monkeypatch, tmp_path):
    """Also under another name, after damage, and where nothing can be kept; another config.json is another model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shapes, "_counted", shapes._counted.__wrapped__)
    counted = find_shape("miniature")
    [kept] = (tmp_path / "tinyr1v_ray" / "shapes").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(shapes, "count_shape", None)
        assert find_shape("miniature") == counted
        assert find_shape(str(base_model_folder())) == replace(counted, name=str(base_model_folder()))
    kept.write_text("{")
    assert find_shape("miniature") == counted and kept.stat().st_size > 1000
    assert find_shape("Qwen/Qwen2.5-VL-3B-Instruct") != counted and len(list(kept.parent.iterdir())) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    assert find_shape("miniature") == counted


@pytest.mark.parametrize("path", ["somebody/Other-3B", "runs/mine", "no such model"])
def test_an_unknown_model_is_one_line(path):
    with pytest.raises(
        ModelError, match=r"is no folder with a config.json.*; a plan needs the model's shapes; download"
    ):
        find_shape(path)


def test_a_config_that_lacks_a_number_is_named(tmp_path):
    config = dict(KNOWN["Qwen/Qwen2.5-VL-3B-Instruct"])
    del config["num_hidden_layers"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"without num_hidden_layers; it is a Qwen2\.5-VL's"):
        find_shape(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        find_shape(str(tmp_path))
