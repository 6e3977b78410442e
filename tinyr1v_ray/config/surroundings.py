"""The settings of what surrounds training: weights on their way, checkpoints, telemetry, the cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from tinyr1v_ray.config.base import Settings
from tinyr1v_ray.config.folders import Folder


class WeightSettings(Settings):
    """How new weights reach the engines."""

    backend: Literal["cpu_file", "nccl"] = "cpu_file"
    """vLLM weight-transfer backend: a safetensors file in memory on the node, or NCCL between GPUs."""
    folder: Folder = "/dev/shm"
    """Where `cpu_file` puts its files; a shared folder when engines sit on several nodes."""
    timeout_s: PositiveFloat = 300.0
    """Deadline of each phase of an update."""
    canary_tolerance: NonNegativeFloat = 0.0
    """Largest difference of a fixed prompt's log-probs between engine and learner (nat); 0: 1e-3 in float32, 0.25 in
    bfloat16."""


class CheckpointSettings(Settings):
    """What is kept of a run."""

    every_n_steps: PositiveInt = 20
    """Distance of checkpoints; the last step always makes one."""
    keep_last: PositiveInt = 2
    """Checkpoints kept."""
    export: bool = True
    """Write the specialist in Hugging Face format, float32, at the end."""


class TelemetrySettings(Settings):
    """Where figures go besides the run's own files."""

    tensorboard: bool = True
    """Write TensorBoard events."""
    wandb_project: str = ""
    """Weights & Biases project; empty: off."""
    num_samples_per_step: NonNegativeInt = 2
    """Groups a step whose texts and images are kept for looking at."""
    progress: bool = True
    """Show live progress."""


class ClusterSettings(Settings):
    """The Ray cluster."""

    address: str = ""
    """`auto`, `ray://...` or host:port of a running cluster; empty: start one on this machine."""
    num_cpus: NonNegativeInt = 0
    """CPU cores that a cluster started here may use; 0: all."""
    autoscaling: bool = False
    """The cluster grows on demand: actors wait for nodes (until their start timeouts) instead of being refused."""
