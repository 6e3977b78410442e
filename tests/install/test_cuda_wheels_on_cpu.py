"""The import cure is put where it is needed and taken out where it is not; there it reaches every interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest
import torch

from tinyr1v_ray import cuda_wheels_on_cpu

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CURE = "tinyr1v_ray.cuda_wheels_on_cpu"
NUM_WATCHING = "import sys; print([type(each).__name__ for each in sys.meta_path].count('CudaWheelsOnCpu'))"


def run(python: Path, arguments: list[str], *paths: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}
    done = subprocess.run([python, *arguments], env=environment, capture_output=True, text=True, timeout=300, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr
    return done.stdout.strip()


def python(code: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd="/").stdout.strip()


def test_a_fresh_interpreter_imports_torchvision_torchaudio_and_the_processor() -> None:
    code = "import torchvision, torchaudio; from transformers import Qwen2_5_VLProcessor; print('fine')"
    assert python(code) == "fine"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A new environment with the libraries of this one, as plain paths: no `.pth` of theirs is read."""
    venv.create(tmp_path / "env", symlinks=True)
    [packages] = (tmp_path / "env" / "lib").glob("python3.*/site-packages")
    (packages / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return tmp_path / "env"


@pytest.mark.skipif(torch.version.cuda is not None, reason="nothing is needed beside a CUDA torch")
def test_it_is_put_where_it_is_needed_and_taken_out_where_not(environment: Path, tmp_path: Path) -> None:
    python = environment / "bin" / "python"
    needed = "CUDA" in run(python, ["-m", CURE])
    assert run(python, ["-c", NUM_WATCHING]) == str(int(needed))
    assert run(python, ["-c", "import torchvision.ops, torchaudio, sys; print('torch' in sys.modules)"]) == "True"
    assert run(python, ["-c", "import sys; print('torch' in sys.modules)"]) == "False", "it imports nothing itself"

    fitting = tmp_path / "fitting"  # torchvision and torchaudio that load, such as those built for CPUs
    for name in ("torchvision", "torchaudio"):
        (fitting / name).mkdir(parents=True)
        (fitting / name / "__init__.py").touch()
    (fitting / "torchvision" / "ops.py").touch()
    assert run(python, ["-m", CURE], fitting) == "torchvision and torchaudio need no cure"
    assert run(python, ["-c", NUM_WATCHING]) == "0"


def test_it_is_left_out_where_it_cannot_help(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "broken" / "torchvision").mkdir(parents=True)
    (tmp_path / "broken" / "torchvision" / "__init__.py").write_text("raise ImportError('libjpeg is missing')")
    python = environment / "bin" / "python"
    assert run(python, ["-m", CURE], tmp_path / "broken") == "torchvision and torchaudio need no cure"


def test_what_stays_of_an_uninstalled_package_says_nothing(environment: Path) -> None:
    [packages] = (environment / "lib").glob("python3.*/site-packages")
    (packages / "libraries.pth").unlink()
    (packages / cuda_wheels_on_cpu._FILE).write_text(cuda_wheels_on_cpu._LINE)
    done = subprocess.run(
        [environment / "bin" / "python", "-c", ""], capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_operators_that_exist_are_left_alone() -> None:
    """Where torchvision's own operators have loaded, a second declaration would be an error."""
    code = """
        import torch
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", lambda dets, scores, limit: torch.tensor([41]), "CPU")
        from tinyr1v_ray import cuda_wheels_on_cpu
        cuda_wheels_on_cpu._declare_missing_operators()
        print(len(cuda_wheels_on_cpu._libraries), int(torch.ops.torchvision.nms(torch.ones(1, 4), torch.ones(1), 0.5)))
    """
    assert python(code) == "0 41"


def test_missing_operators_are_declared_but_not_implemented() -> None:
    code = """
        import torch, torchvision
        try:
            torch.ops.torchvision.nms(torch.ones(1, 4), torch.ones(1), 0.5)
        except NotImplementedError:
            print("declared")
    """
    assert torch.version.cuda is not None or python(code) == "declared"


def test_installing_twice_watches_once() -> None:
    cuda_wheels_on_cpu.install()
    finders = [finder for finder in sys.meta_path if isinstance(finder, cuda_wheels_on_cpu.CudaWheelsOnCpu)]
    assert len(finders) == 1
