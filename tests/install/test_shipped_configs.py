"""The configurations that come along: found by name from anywhere, shown, copied, never written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.config.base import read_yaml
from tinyr1v_ray.config.shipped import shipped_files

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_all_of_them_are_shipped() -> None:
    assert set(shipped_files().values()) == set(CONFIGS.iterdir())


def test_the_list_says_what_each_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "list"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(rows) == {path.stem for path in CONFIGS.iterdir()}
    assert rows["lipo_math_8gpu"] == "The math specialist of Tiny-R1V-3B on eight GPUs"


def test_one_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "show", "merge_miniature_cpu"]) == 0
    assert capsys.readouterr().out == (CONFIGS / "merge_miniature_cpu.yaml").read_text()


def test_a_copy_is_made_once_and_never_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "copy", "miniature_ocr_cpu"]) == 0
    assert main(["configs", "copy", "miniature_ocr_cpu.yaml", "mine.yaml"]) == 0
    original = (CONFIGS / "miniature_ocr_cpu.yaml").read_text()
    assert [(tmp_path / name).read_text() for name in ("miniature_ocr_cpu.yaml", "mine.yaml")] == [original] * 2
    Path("mine.yaml").write_text("run: {name: mine}\n")
    capsys.readouterr()
    assert main(["configs", "copy", "miniature_math_cpu", "mine.yaml"]) == 2
    assert main(["configs", "copy", "miniature_math_cpu", "no_such_folder/mine.yaml"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("tinyr1v: mine.yaml cannot be made: File exists;")
    assert second.startswith("tinyr1v: no_such_folder/mine.yaml cannot be made: No such file or directory;")
    assert Path("mine.yaml").read_text() == "run: {name: mine}\n"


def test_an_unknown_name_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "show", "miniature_orc_cpu"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("did you mean miniature_ocr_cpu?")
    assert main(["plan", "--config", "miniature_orc_cpu"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "miniature_orc_cpu does not exist" in line and "tinyr1v configs list" in line


@pytest.mark.parametrize("name", ["recipe_miniature_cpu", "recipe_miniature_cpu.yaml"])
def test_a_mere_name_is_enough_for_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", name]) == 0
    assert "recipe_miniature_cpu: 4 trainings" in capsys.readouterr().out


def test_a_file_here_goes_before_a_shipped_one_and_a_path_is_never_a_name() -> None:
    assert read_yaml(Path("miniature_ocr_cpu")) == read_yaml(CONFIGS / "miniature_ocr_cpu.yaml")
    Path("miniature_ocr_cpu").write_text("run: {name: mine}\n")
    assert read_yaml(Path("miniature_ocr_cpu")) == {"run": {"name": "mine"}}
    for path in ("./sub/miniature_ocr_cpu", "REFERENCE", "REFERENCE.md"):
        with pytest.raises(ValueError, match="does not exist"):
            read_yaml(Path(path))
