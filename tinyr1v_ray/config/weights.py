"""The settings of the weights' way from the learner to the engines."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from tinyr1v_ray.config.base import Settings
from tinyr1v_ray.config.folders import Folder

BACKENDS_ON_GPUS = frozenset({"nccl", "ipc"})
"""Those that move weights between GPUs; the others are for engines on the CPU."""


class WeightSettings(Settings):
    """How new weights reach the engines."""

    backend: Literal["cpu_file", "nccl", "ipc"] = "cpu_file"
    """vLLM weight-transfer backend: a safetensors file in memory on the node, NCCL between GPUs, or CUDA IPC within a
    GPU that engine and learner rank share (`placement.colocate`)."""
    folder: Folder = "/dev/shm"
    """Where `cpu_file` puts its files; a shared folder when engines sit on several nodes."""
    timeout_s: PositiveFloat = 300.0
    """Deadline of each phase of an update."""
    canary_tolerance: NonNegativeFloat = 0.0
    """Largest difference of a logit between engine and learner, four times that of the mean; 0: learned from the first
    version, at least 1e-3 in float32 and 0.25 in bfloat16."""
