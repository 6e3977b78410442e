"""The memory of decoded images: right with it, right without it, faster with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tinyr1v_ray.data import verified
from tinyr1v_ray.data.images import inspect_image
from tinyr1v_ray.data.verified import VerifiedImages
from tinyr1v_ray.errors import DataError

Picture = Callable[..., bytes]


def test_a_known_image_is_not_decoded_again(tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [picture(40, 30, seed, "JPEG") for seed in range(3)]
    memory = VerifiedImages.for_sources(tmp_path, ["a"])
    expected = [inspect_image(content, 64) for content in contents]
    assert [memory.inspect(content, 64) for content in contents] == expected
    memory.save()
    decoded: list[bytes] = []
    monkeypatch.setattr(verified, "inspect_image", lambda *given: (decoded.append(given[0]), inspect_image(*given))[1])
    again = VerifiedImages.for_sources(tmp_path, ["a"])
    assert [again.inspect(content, 64) for content in contents] == expected and decoded == []
    with pytest.raises(DataError, match="megapixels"):
        again.inspect(contents[0], 0.001)
    assert VerifiedImages.for_sources(tmp_path, ["b"]).inspect(contents[0], 64) == expected[0] and len(decoded) == 1


def test_broken_images_are_not_remembered(tmp_path: Path, picture: Picture) -> None:
    memory = VerifiedImages(tmp_path / "memory.jsonl")
    for _ in range(2):
        with pytest.raises(DataError):
            memory.inspect(picture()[:100], 64)
    memory.save()
    assert not (tmp_path / "memory.jsonl").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]\n", '["a", 1, 2, 3]\n', "null\n", '[["a"], [], 1, 2, 3]\n'])
def test_a_damaged_memory_is_an_empty_one(tmp_path: Path, picture: Picture, content: str) -> None:
    path = tmp_path / "memory.jsonl"
    path.write_text(content)
    memory = VerifiedImages(path)
    facts = memory.inspect(picture(), 64)
    memory.save()
    assert facts == inspect_image(picture(), 64)
    assert path.read_text().count("\n") == 1


def test_a_folder_that_takes_no_files_costs_nothing_but_time(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "verified").write_text("a file")
    memory = VerifiedImages.for_sources(tmp_path, ["a"])
    memory.inspect(picture(), 64)
    memory.save()
    assert [path.name for path in tmp_path.iterdir()] == ["verified"]
