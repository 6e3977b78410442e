"""The plan of any configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinyr1v_ray.cluster.host import total_memory_bytes
from tinyr1v_ray.cluster.shape import ClusterShape, parse_cluster
from tinyr1v_ray.config.base import apply_overrides
from tinyr1v_ray.config.kinds import kind_of_config, values_at
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.planning.plan import Plan, PlanRequest
from tinyr1v_ray.planning.shapes import find_shape

_GPU_KEYS = ("num_gpus_per_engine", "num_gpus_per_rank", "num_gpus", "device")


def make_plan(request: PlanRequest) -> Plan:
    """The plan of any configuration, on the named cluster or on one that it would usually get."""
    kind = kind_of_config(request.tree, str(request.path))
    if kind != "train" and request.recorded is not None:
        raise ConfigError(f"--recorded with a configuration of kind {kind}; a recorded run is a training; leave it out")
    if request.shape:
        find_shape(request.shape)  # refused here where no model of the configuration needs it
    cluster = request.cluster or usual_cluster(request.tree, request.overrides)
    planner = _planner(kind)
    return planner(request, cluster)


def _planner(kind: str) -> Callable[[PlanRequest, ClusterShape], Plan]:
    """Imported on use: a merge's plan loads torch, the others need not wait for it."""
    if kind == "merge":
        from tinyr1v_ray.planning.merge_plan import plan_merge

        return plan_merge
    if kind == "evaluate":
        from tinyr1v_ray.planning.evaluate_plan import plan_evaluation

        return plan_evaluation
    if kind == "recipe":
        from tinyr1v_ray.planning.recipe_plan import plan_recipe

        return plan_recipe
    from tinyr1v_ray.planning.train_plan import plan_training

    return plan_training


def usual_cluster(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> ClusterShape:
    """Where no cluster is named: eight H100 for what asks for GPUs, else this machine."""
    return parse_cluster("1x8xH100-80GB") if gpus_asked(apply_overrides(tree, overrides)) else this_machine()


def gpus_asked(tree: Mapping[str, Any]) -> float:
    """The most GPUs that one actor would get, as far as unchecked settings say.

    >>> gpus_asked({"train": {"rollout": {"num_gpus_per_engine": 2}}, "merge": {"job": {"device": "cuda"}}})
    2.0
    """
    asked = values_at(tree, _GPU_KEYS)
    return max((float(value) if isinstance(value, int | float) else value == "cuda" for value in asked), default=0.0)


def this_machine() -> ClusterShape:
    """Its cores and memory (or those of the control group that this process is confined to)."""
    return ClusterShape(1, 0, None, os.cpu_count() or 1, round(total_memory_bytes() / 2**30, 1))
