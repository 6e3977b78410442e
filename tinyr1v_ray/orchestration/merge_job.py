"""Stage 2 as a job: settings in, a merged model folder out; in this process or on Ray workers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import ray

from tinyr1v_ray.config.merge import JobConfig, MergeConfig
from tinyr1v_ray.config.surroundings import ClusterSettings
from tinyr1v_ray.data.model_folder import resolve_model_folder
from tinyr1v_ray.errors import PlacementError
from tinyr1v_ray.merging.estimate import measure_rates
from tinyr1v_ray.merging.local_run import local_runner
from tinyr1v_ray.merging.plan import MergePlan
from tinyr1v_ray.merging.plan_text import describe_plan
from tinyr1v_ray.merging.schedule import check_memory, make_bundles
from tinyr1v_ray.merging.session import (
    Listener,
    MergeSummary,
    PreparedMerge,
    Silent,
    prepare_merge,
    run_merge,
)
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.orchestration.cluster import connected
from tinyr1v_ray.orchestration.merge_workers import ray_runner

MINIATURE = "miniature"
_LOCAL_FLOPS = 3e12
"""Below this (a minute of one core at 50 GFLOP/s) starting workers costs more than it saves."""
_OBJECT_STORE_BYTES = 128 << 20
"""Of a cluster that is started for a merge: only the plan goes through it."""


@dataclass(frozen=True)
class MergeResources:
    """How a plan is carried out here: `num_workers` 0 is this process."""

    num_workers: int
    num_threads: int
    memory_bytes: int


def base_folder(base: str) -> Path:
    """The folder of `config.base`: a path, a hub name, or the embedded miniature."""
    if base == MINIATURE:
        return base_model_folder()
    folder = Path(base).expanduser()
    return folder if folder.exists() or base.count("/") != 1 else resolve_model_folder(base)


def prepare(config: MergeConfig) -> PreparedMerge:
    """All checks and the plan; nothing is written, no cluster is started."""
    return prepare_merge(config, base_folder(config.base))


def choose_resources(plan: MergePlan, job: JobConfig) -> MergeResources:
    """Workers and memory for a plan. Pure but for asking this machine how many cores and how much memory it has."""
    cores = os.cpu_count() or 1
    memory = int(job.memory_gib * 2**30) if job.memory_gib is not None else int(0.8 * available_memory_bytes())
    wide = max(1, cores // plan.threads_per_task)
    workers = job.num_workers
    if workers is None:
        small = sum(task.cost.flops for task in plan.tasks) < _LOCAL_FLOPS
        workers = 0 if small and job.ray_address is None and plan.device == "cpu" else wide
    return MergeResources(workers, wide if plan.device == "cpu" else 1, memory)


def available_memory_bytes() -> int:
    """Of this machine, or of the control group that this process is confined to."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
        free = min(free, int(text))
    return free


def describe(prepared: PreparedMerge) -> list[str]:
    """The dry run's lines; measures this machine for a second."""
    plan = prepared.plan
    resources = choose_resources(plan, prepared.config.job)
    workers = resources.num_workers or resources.num_threads
    lines = describe_plan(plan, measure_rates(plan.device, plan.threads_per_task), workers)
    where = f"{resources.num_workers} Ray workers" if resources.num_workers else "this process"
    lines.append(f"runs in      {where}, at most {resources.memory_bytes / 2**30:.1f} GiB for tasks on a node")
    return [*lines, *(f"conflict     {line}" for line in prepared.conflicts), f"output       {prepared.output}"]


def run_merge_job(prepared: PreparedMerge, listener: Listener | None = None) -> MergeSummary:
    """Carry out a prepared merge, in this process or on Ray workers.

    They run where this process is connected already, else on the cluster of `job.ray_address` (or of the Ray job that
    this is), else on one that is started here for the merge.
    """
    job = prepared.config.job
    resources = choose_resources(prepared.plan, job)
    check_memory(make_bundles(prepared.plan, (), ()), resources.memory_bytes)
    if resources.num_workers == 0:
        return run_merge(prepared, local_runner(resources.num_threads, resources.memory_bytes), listener or Silent())
    here = ClusterSettings(
        address=job.ray_address or "",
        num_cpus=max(os.cpu_count() or 1, resources.num_workers * prepared.plan.threads_per_task),
    )
    with connected(here, setting="job.ray_address", object_store_bytes=_OBJECT_STORE_BYTES):
        _check_cluster(prepared.plan)
        return run_merge(prepared, ray_runner(resources.num_workers, resources.memory_bytes), listener or Silent())


def _check_cluster(plan: MergePlan) -> None:
    """Raise PlacementError when no node can hold one worker."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 1 if plan.device == "cuda" else 0
    if not any(n.get("CPU", 0) >= plan.threads_per_task and n.get("GPU", 0) >= gpus for n in nodes):
        raise PlacementError(
            f"no node has {plan.threads_per_task} CPUs and {gpus} GPUs for a merge worker; a worker lives on one node; "
            "lower job.threads_per_task or set job.device to cpu"
        )
