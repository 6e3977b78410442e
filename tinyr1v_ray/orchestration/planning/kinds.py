"""Which kind of configuration a file holds, by what only that kind has."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.orchestration.planning.cluster import ClusterShape, parse_cluster
from tinyr1v_ray.orchestration.planning.plan import Plan, PlanRequest
from tinyr1v_ray.orchestration.planning.shapes import find_shape

TELLING_KEYS = {"recipe": "trainings", "merge": "experts", "evaluate": "benchmarks", "train": "run"}
"""Kind -> the top-level key that it cannot lack; asked in this order."""

_GPU_KEYS = ("num_gpus_per_engine", "num_gpus_per_rank", "num_gpus", "device")


def kind_of_config(tree: Mapping[str, Any], name: str) -> str:
    """train, merge, evaluate or recipe; raises ConfigError."""
    for kind, key in TELLING_KEYS.items():
        if key in tree:
            return kind
    keys = ", ".join(f"{key} ({kind})" for kind, key in TELLING_KEYS.items())
    raise ConfigError(
        f"config file {name} has none of the keys {keys}; one of them tells its kind; name a configuration of this "
        "package, such as those in configs/"
    )


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
        from tinyr1v_ray.orchestration.planning.merge_plan import plan_merge

        return plan_merge
    if kind == "evaluate":
        from tinyr1v_ray.orchestration.planning.evaluate_plan import plan_evaluation

        return plan_evaluation
    if kind == "recipe":
        from tinyr1v_ray.orchestration.planning.recipe_plan import plan_recipe

        return plan_recipe
    from tinyr1v_ray.orchestration.planning.train_plan import plan_training

    return plan_training


def usual_cluster(tree: Mapping[str, Any], overrides: Sequence[str] = ()) -> ClusterShape:
    """Where no cluster is named: eight H100 for what asks for GPUs, else this machine."""
    try:
        merged = OmegaConf.merge(OmegaConf.create(dict(tree)), OmegaConf.from_dotlist(list(overrides)))
        asked = OmegaConf.to_container(merged)
    except (OmegaConfBaseException, YAMLError):  # overrides that cannot be applied are refused where they are parsed
        asked = dict(tree)
    return parse_cluster("1x8xH100-80GB") if _asks_for_gpus(asked) else this_machine()


def _asks_for_gpus(node: object) -> bool:
    """Whether some setting below reserves a GPU."""
    if not isinstance(node, Mapping):
        return False
    own = any(key in _GPU_KEYS and value not in (0, 0.0, "cpu", None) for key, value in node.items())
    return own or any(_asks_for_gpus(value) for value in node.values())


def this_machine() -> ClusterShape:
    """Its cores and memory (or those of the control group that this process is confined to)."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
        memory = min(memory, int(text))
    return ClusterShape(1, 0, None, os.cpu_count() or 1, round(memory / 2**30, 1))
