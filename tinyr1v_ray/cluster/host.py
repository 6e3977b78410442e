"""The machine that this process runs on, as far as its control group lets it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil

from tinyr1v_ray.cluster.shape import Accelerator

_CGROUP = Path("/sys/fs/cgroup")


def num_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def total_memory_bytes(cgroup: Path = _CGROUP) -> int:
    """Of the machine, or of the control group."""
    return min(int(psutil.virtual_memory().total), _limit(cgroup))


def available_memory_bytes(cgroup: Path = _CGROUP) -> int:
    """What can be had without swapping: of the machine, or of what the control group has left."""
    limit, used = _limit(cgroup), cgroup / "memory.current"
    left = limit - int(used.read_text(encoding="ascii")) if used.is_file() else limit
    return min(int(psutil.virtual_memory().available), left)


def smallest_gpu() -> Accelerator | None:
    """The GPU of this machine with the least memory, its rates left out; None where the driver's tool tells of none."""
    if (program := shutil.which("nvidia-smi")) is None:
        return None
    query = [program, "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    rows = [line.partition(", ") for line in done.stdout.splitlines()] if done.returncode == 0 else []
    gpus = [Accelerator(name, float(mib) / 1024, 0.0, 0.0, 0.0) for mib, _, name in rows if mib.isdecimal()]
    return min(gpus, key=lambda gpu: gpu.memory_gib, default=None)


def _limit(cgroup: Path) -> int:
    """Of a control group (version 2), bytes; the largest number there is when it has none."""
    limit = cgroup / "memory.max"
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return 2**63 - 1 if text == "max" else int(text)
