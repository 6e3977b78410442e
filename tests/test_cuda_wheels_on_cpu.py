"""The import cure reaches every interpreter of the environment and does nothing where nothing is wrong."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import torch

from tinyr1v_ray import cuda_wheels_on_cpu


def python(code: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd="/").stdout.strip()


def test_a_fresh_interpreter_imports_torchvision_torchaudio_and_the_processor() -> None:
    code = "import torchvision, torchaudio; from transformers import Qwen2_5_VLProcessor; print('fine')"
    assert python(code) == "fine"


def test_the_cure_is_installed_without_importing_anything() -> None:
    code = (
        "import sys; print('torch' in sys.modules, [type(f).__name__ for f in sys.meta_path].count('CudaWheelsOnCpu'))"
    )
    assert python(code) == "False 1"


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
