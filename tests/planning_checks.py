"""Holding a plan to a finished run: used by tests that make real runs."""

import json

from tinyr1v_ray.config.base import parse_settings, read_yaml
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.planning.make import this_machine
from tinyr1v_ray.planning.shapes import find_shape
from tinyr1v_ray.planning.train_design import design_training

MIB = 2**20

APART = (
    *("placement.colocate=false", "weights.backend=nccl", "rollout.gpu_memory_share=0.85"),
    *("rollout.num_engines=4", "learner.num_ranks=4"),
)
"""The shipped eight GPUs with engines and learner on GPUs of their own, half of them each."""


def planned_mib(config, expect=()):
    """Role of an actor -> planned main memory."""
    design = design_training(config, find_shape(config.model.path), this_machine(), dict(expect))
    return {role: memory.host_bytes / MIB for role, memory in design.memories.items()}


def assert_memory_as_planned(run_folder, tolerance=0.2):
    """Every actor's peak in `summary.json` is within `tolerance` of the plan made of the run's own configuration.

    The driver is left out: a process started by a large one (such as pytest) reports its parent's peak.
    """
    planned = planned_mib(parse_settings(TrainConfig, read_yaml(run_folder / "config.yaml")))
    measured = json.loads((run_folder / "summary.json").read_text())["peak_memory_mib"]
    off = {
        actor: f"planned {planned[actor.partition('-')[0]]:.0f} MiB, measured {peak:.0f} MiB"
        for actor, peak in measured.items()
        if actor != "driver" and abs(planned[actor.partition("-")[0]] / peak - 1) > tolerance
    }
    assert off == {}
