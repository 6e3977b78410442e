"""`tinyr1v miniature build`, end to end at a small size."""

import argparse
import json
from pathlib import Path

import pytest
from PIL import Image

from tinyr1v_ray.cli import miniature
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.miniature import assemble
from tinyr1v_ray.miniature.base import base_model_folder

pytestmark = pytest.mark.slow


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    miniature.add_parser(parser.add_subparsers())
    return parser.parse_args(["miniature", "build", *words])


def test_shipped_base_is_copied_with_data_and_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert miniature.run(_arguments("--output", str(tmp_path / "mini"), "--shipped-base")) == 0
    assert "contact_sheet.png" in capsys.readouterr().out
    written = sorted(
        str(path.relative_to(tmp_path / "mini")) for path in (tmp_path / "mini" / "data").rglob("*.parquet")
    )
    assert len(written) == 9 and "data/ocr/evaluation.parquet" in written
    weights = (base_model_folder() / "model.safetensors").read_bytes()
    assert (tmp_path / "mini" / "base" / "model.safetensors").read_bytes() == weights
    with Image.open(tmp_path / "mini" / "contact_sheet.png") as sheet:
        assert sheet.width > 1000
    assert list(tmp_path.iterdir()) == [tmp_path / "mini"]


def test_a_small_build_trains_measures_and_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "write_data", lambda folder, seed, on_progress: None)
    words = ("--output", str(tmp_path / "mini"), "--steps", "2", "--measure", "4", "--threads", "1", "--seed", "5")
    assert miniature.run(_arguments(*words)) == 0
    record = json.loads((tmp_path / "mini" / "base" / "miniature.json").read_text())
    assert record["seed"] == record["warmup"]["seed"] == 5 and record["warmup"]["num_steps"] == 2
    assert record["versions"]["torch"] and record["evaluation"]["math"]["zero"]["num_items"] == 4
    assert (tmp_path / "mini" / "base" / "model.safetensors").is_file()


def test_an_existing_output_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mini").mkdir()
    with pytest.raises(RunFolderError, match="exists"):
        miniature.run(_arguments("--output", str(tmp_path / "mini"), "--shipped-base"))
    assert list((tmp_path / "mini").iterdir()) == []


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, seed: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assemble, "write_data", lambda folder, seed, on_progress: None)
    monkeypatch.setattr(assemble, "write_contact_sheet", fail)
    with pytest.raises(OSError, match="No space"):
        miniature.run(_arguments("--output", str(tmp_path / "mini"), "--shipped-base"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("--steps", "0"), ("--measure", "-3"), ("--threads", "two")])
def test_counts_must_be_positive(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        _arguments("--output", "unused", *words)
    assert stopped.value.code == 2 and words[0] in capsys.readouterr().err
