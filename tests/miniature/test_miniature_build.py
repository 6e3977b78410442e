"""Data files: columns, bytes that repeat, atomic writing, and clear errors."""

import hashlib
import re
from io import BytesIO
from pathlib import Path

import datasets
import pytest
from PIL import Image

from tinyr1v_ray.errors import DataError
from tinyr1v_ray.miniature import build
from tinyr1v_ray.miniature.build import ensure_data, write_data_file
from tinyr1v_ray.miniature.tasks.pools import NUM_ITEMS, Domain, Pool


def test_evaluation_pools_hold_a_thousand_items() -> None:
    assert NUM_ITEMS[Pool.EVALUATION] >= 1000


@pytest.mark.parametrize("domain", list(Domain))
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, domain: Domain) -> None:
    digests = []
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        write_data_file(tmp_path / f"{name}.parquet", domain, Pool.TRAIN, seed, count=60)
        digests.append(hashlib.sha256((tmp_path / f"{name}.parquet").read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_ensured_file_has_the_promised_columns_and_is_made_once(tmp_path: Path) -> None:
    path = ensure_data(tmp_path, "structure", "evaluation")
    table = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert table.column_names == ["prompt_id", "image", "question", "answer", "difficulty", "need", "domain"]
    assert len(table) == 1000 == len(set(table["prompt_id"]))
    assert set(table["domain"]) == {"structure"}
    stored = table.cast_column("image", datasets.Image(decode=False))[7]["image"]["bytes"]
    assert stored.startswith(b"\x89PNG") and Image.open(BytesIO(stored)).size == table[7]["image"].size
    before = path.stat()
    assert ensure_data(tmp_path, "structure", "evaluation") == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ino == before.st_ino


def test_warmup_file_has_answers_in_all_styles(tmp_path: Path) -> None:
    write_data_file(tmp_path / "warmup.parquet", Domain.MATH, Pool.WARMUP, seed=0, count=40)
    table = datasets.Dataset.from_parquet(str(tmp_path / "warmup.parquet"), cache_dir=str(tmp_path / "cache"))
    for row in table:
        assert re.fullmatch(rf"<think>.*</think><answer>{row['answer']}</answer>", row["response"])
    empty = [response.startswith("<think></think>") for response in table["response"]]
    assert empty == [number % 4 == 0 or (number % 4 == 1 and need == 0) for number, need in enumerate(table["need"])]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(self: datasets.Dataset, path: str) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build.datasets.Dataset, "to_parquet", full_disk)
    with pytest.raises(DataError, match=r"cannot be kept at .*: No space left on device; .* set XDG_CACHE_HOME"):
        ensure_data(tmp_path, "ocr", "train")
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == []


def test_a_cache_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for cache, says in ((tmp_path / "file", "Not a directory"), (tmp_path / ("a" * 300), "File name too long")):
        with pytest.raises(DataError, match=f"{says}; .* set XDG_CACHE_HOME"):
            ensure_data(cache, "ocr", "train")


@pytest.mark.parametrize(("domain", "split", "named"), [("orc", "train", "ocr"), ("ocr", "test", "evaluation")])
def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path, domain: str, split: str, named: str) -> None:
    with pytest.raises(DataError, match=named):
        ensure_data(tmp_path, domain, split)
    assert list(tmp_path.iterdir()) == []
