"""Checks of the machine: GPUs and driver, memory, shared memory, disk, limits of the shell."""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tinyr1v_ray.cluster.host import available_memory_bytes, num_cores
from tinyr1v_ray.doctor.finding import Check, CheckResult, Status

_GIB = 2**30
_SHM_PROBLEM_GIB, _SHM_WARNING_GIB = 0.25, 2.0
_DISK_PROBLEM_GIB, _DISK_WARNING_GIB = 2.0, 20.0
_FULL_FOR_RAY = 0.95
"""Share of a disk above which Ray refuses to put objects there (its `local_fs_capacity_threshold`)."""
_FILES_PROBLEM, _FILES_WARNING = 1024, 8192
_MEMORY_WARNING_GIB = 8.0
_NVIDIA = "0x10de"
"""The vendor's number on the PCI bus."""


def machine_checks(gpus_wanted: float, folders: dict[str, Path]) -> list[Check]:
    """`folders`: what is written where, by a name for the report."""
    places = {**folders, "temporary files": Path(tempfile.gettempdir())}
    return [
        Check("gpus", "the bf16 configurations need them, with a driver that answers", lambda: check_gpus(gpus_wanted)),
        Check("memory", "each engine, rank and scorer is a process with libraries of its own", check_memory),
        Check("shared memory", "weights on their way, Ray's objects and NCCL live there", check_shared_memory),
        Check("disk", "checkpoints are written whole before old ones go", lambda: check_disk(places)),
        Check("limits", "Ray opens a socket per worker and node, and starts many threads", check_limits),
    ]


def check_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> CheckResult:
    """Available memory, or what the container's limit leaves of it, and usable cores."""
    available = available_memory_bytes(cgroup)
    seen = f"{available / _GIB:.1f} GiB available, {num_cores()} cores"
    if available < _MEMORY_WARNING_GIB * _GIB:
        return CheckResult(
            Status.WARNING,
            seen,
            f"have {_MEMORY_WARNING_GIB:g} GiB free, or ask for fewer engines and ranks (rollout.num_engines, "
            "learner.num_ranks) and a smaller rollout.kv_cache_gib",
        )
    return CheckResult(Status.OK, seen)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> CheckResult:
    """Free space in shared memory."""
    if not folder.is_dir():
        return CheckResult(Status.PROBLEM, f"{folder} does not exist", f"mount a tmpfs at {folder}")
    usage = shutil.disk_usage(folder)
    seen = f"{usage.free / _GIB:.2f} of {usage.total / _GIB:.2f} GiB free at {folder}"
    if usage.free >= _SHM_WARNING_GIB * _GIB:
        return CheckResult(Status.OK, seen)
    return CheckResult(
        Status.PROBLEM if usage.free < _SHM_PROBLEM_GIB * _GIB else Status.WARNING,
        seen,
        "give the container more: docker run --shm-size=8g, or in Kubernetes an emptyDir with medium: Memory; or let "
        "weights go through a disk: weights.folder=/tmp",
    )


def check_disk(folders: dict[str, Path]) -> CheckResult:
    """Free space where things are written; folders that do not exist yet count as their nearest parent."""
    worst, seen = Status.OK, []
    for name, folder in folders.items():
        absolute = folder.expanduser().absolute()
        existing = next(place for place in (absolute, *absolute.parents) if place.exists())
        usage = shutil.disk_usage(existing)
        seen.append(f"{name}: {usage.free / _GIB:.1f} GiB free at {absolute}")
        if usage.free < _DISK_PROBLEM_GIB * _GIB:
            worst = Status.PROBLEM
        elif usage.free < _DISK_WARNING_GIB * _GIB or 1 - usage.free / usage.total > _FULL_FOR_RAY:
            worst = Status.WARNING if worst == Status.OK else worst
    return CheckResult(
        worst,
        "; ".join(seen),
        ""
        if worst == Status.OK
        else "free space, let results and TMPDIR lie elsewhere, lower checkpoint.keep_last; "
        "above 95 % full Ray stops spilling objects",
    )


def check_limits() -> CheckResult:
    """Open files and processes that this shell allows."""
    files, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    seen = f"{_count(files)} open files, {_count(processes)} processes"
    unlimited = resource.RLIM_INFINITY
    if files != unlimited and files < _FILES_WARNING:
        below_hard = most_files == unlimited or most_files >= _FILES_WARNING
        fix = f"ulimit -n {_FILES_WARNING}" if below_hard else "raise nofile in /etc/security/limits.conf"
        status = Status.PROBLEM if files < _FILES_PROBLEM else Status.WARNING
        return CheckResult(status, seen, f"{fix} before Ray starts (in Slurm and systemd: LimitNOFILE)")
    if processes != unlimited and processes < _FILES_PROBLEM:
        return CheckResult(Status.PROBLEM, seen, "ulimit -u 65536: threads count as processes")
    return CheckResult(Status.OK, seen)


def _count(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _gpu_build_installed() -> bool:
    try:
        version("vllm")
    except PackageNotFoundError:
        return False
    return True


def _get_driver(devices: Path) -> str:
    """The command that helps where the driver's tool is missing, by whether there is an NVIDIA device."""
    if not any(vendor.read_text().strip() == _NVIDIA for vendor in devices.glob("*/vendor")):
        return "run this on a GPU node; for CPU configurations here: make install EXTRAS=cpu"
    return "sudo ubuntu-drivers install (or your distribution's NVIDIA driver); in a container: docker run --gpus all"


def check_gpus(wanted: float = 0.0, program: str = "nvidia-smi") -> CheckResult:
    """GPUs by the driver's own tool, against the engine that is installed and what a configuration asks for."""
    built_for_gpus = _gpu_build_installed()
    path = shutil.which(program)
    if path is None:
        if wanted or built_for_gpus:
            reason = f"the configuration asks for {wanted:g}" if wanted else "the GPU build of vLLM is installed"
            return CheckResult(
                Status.PROBLEM, f"no {program} here, but {reason}", _get_driver(Path("/sys/bus/pci/devices"))
            )
        return CheckResult(Status.OK, "none; CPU configurations run")
    query = [path, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    gpus = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0 or not gpus:
        said = " ".join((done.stderr or done.stdout).split())[:200] or f"exit code {done.returncode}"
        return CheckResult(
            Status.PROBLEM, f"{program} fails: {said}", "load or reinstall the NVIDIA driver; check dmesg"
        )
    seen = f"{len(gpus)} x {gpus[0]}"
    if not built_for_gpus:
        return CheckResult(
            Status.PROBLEM if wanted else Status.WARNING,
            f"{seen}, but vLLM's CPU build is installed",
            "install the GPU build: `make install EXTRAS=gpu`",
        )
    return CheckResult(Status.OK, seen)
