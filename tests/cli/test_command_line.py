"""The command line explains itself quickly, and bad input costs one line and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from tinyr1v_ray.cli.main import main

TINYR1V = str(Path(sys.executable).with_name("tinyr1v"))
CONFIG = str(Path(__file__).parents[2] / "configs" / "miniature_ocr_cpu.yaml")


def tinyr1v(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TINYR1V, *arguments], capture_output=True, text=True, timeout=120, cwd=folder, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["miniature", "build", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = ("torch", "transformers", "vllm", "deepspeed", "ray", "numpy", "datasets", "pydantic")
    code = (
        "import sys, tinyr1v_ray.cli.main as m\n"
        f"try: m.main({arguments!r})\n"
        f"except SystemExit: pass\nprint([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("[]\n")
    assert "usage: tinyr1v" in done.stdout


def test_help_names_the_sub_commands() -> None:
    done = tinyr1v("--help")
    assert done.returncode == 0
    assert {"train", "miniature"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["algorithm.lipo.boots=0.5"], "unknown key algorithm.lipo.boots; .* did you mean algorithm.lipo.boost"),
        (["rollout.num_completions=1"], "num_completions is 1; .* at least 2"),
        (["run.num_steps=many"], "run.num_steps is 'many'"),
        (["learner.learning_rate=-1"], "learner.learning_rate is -1"),
        (["data.train=[missing.parquet]"], "missing.parquet"),
        (["model.path=/nowhere"], "model ./nowhere. is no folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_2_and_leaves_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["train", "--config", CONFIG, *arguments]) == 2
    said = capsys.readouterr().err
    assert re.match(f"tinyr1v: .*({message}).*\n$", said), said
    assert not ray.is_initialized() and not list(tmp_path.iterdir())


def test_what_only_the_data_shows_is_one_line_too(tmp_path: Path) -> None:
    done = tinyr1v("train", "--config", CONFIG, "rollout.max_tokens=380", folder=tmp_path)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("tinyr1v: ")]
    assert "prompt of" in line and "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "miniature_ocr_cpu").exists()


def test_a_cluster_that_is_too_small_is_said_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    done = tinyr1v("train", "--config", CONFIG, "rollout.num_engines=64", folder=tmp_path)
    assert done.returncode == 2
    assert "64 engines" in done.stderr and "add nodes" in done.stderr
    assert time.monotonic() - start < 100
    assert not (tmp_path / "runs" / "miniature_ocr_cpu").exists()
