"""Stage 2 as a job: settings in, a merged model folder out; in this process or on Ray workers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from tinyr1v_ray.cluster.connection import cluster_address, connected, node_resources
from tinyr1v_ray.cluster.host import available_memory_bytes
from tinyr1v_ray.cluster.merge_workers import ray_runner
from tinyr1v_ray.config.cluster import ClusterSettings
from tinyr1v_ray.config.merge import JobConfig, MergeConfig
from tinyr1v_ray.data.model_folder import fetch_model_folder
from tinyr1v_ray.errors import PlacementError
from tinyr1v_ray.merging.local_run import local_runner
from tinyr1v_ray.merging.plan import MergePlan
from tinyr1v_ray.merging.schedule import check_memory, make_bundles
from tinyr1v_ray.merging.session import (
    Listener,
    MergeSummary,
    PreparedMerge,
    Silent,
    prepare_merge,
    run_merge,
)

_LOCAL_FLOPS = 3e12
"""Below this (a minute of one core at 50 GFLOP/s) starting workers costs more than it saves."""
_OBJECT_STORE_BYTES = 128 << 20
"""Of a cluster that is started for a merge: only the plan goes through it."""


def prepare(config: MergeConfig) -> PreparedMerge:
    """All checks and the plan; nothing is written, no cluster is started."""
    return prepare_merge(config, fetch_model_folder(config.base))


def runs_in_this_process(plan: MergePlan, job: JobConfig) -> bool:
    """Whether no worker is started: as set, else where starting some costs more than it saves."""
    if job.num_workers is not None:
        return job.num_workers == 0
    small = sum(task.cost.flops for task in plan.tasks) < _LOCAL_FLOPS
    return small and job.ray_address is None and plan.device == "cpu"


def workers_in_cluster(job: JobConfig, nodes: Iterable[Mapping[str, float]]) -> int:
    """`job.num_workers`, else as many as the nodes have room for; `nodes` are their resources as Ray names them.

    Raises PlacementError when no node can hold one worker.
    """
    room = sum(job.workers_on(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes)
    if room == 0:
        gpus = 1 if job.device == "cuda" else 0
        raise PlacementError(
            f"no node has {job.threads_per_task} CPUs and {gpus} GPUs for a merge worker; a worker lives on one node; "
            "lower job.threads_per_task or set job.device to cpu"
        )
    return job.num_workers or room


def _memory_bytes(job: JobConfig) -> int:
    """What tasks that run at once on a node may take."""
    return int(job.memory_gib * 2**30) if job.memory_gib is not None else int(0.8 * available_memory_bytes())


def _workers_here(job: JobConfig) -> int:
    """Workers that this machine has room for."""
    return max(1, job.workers_on(os.cpu_count() or 1, torch.cuda.device_count()))


def _tasks_at_once(job: JobConfig) -> int:
    """Of this process: a task a thread, on one GPU one after the other."""
    return _workers_here(job) if job.device == "cpu" else 1


@dataclass(frozen=True)
class WayToRun:
    """Where a merge's tasks are carried out, in words, by how many workers, and in how much memory on a node."""

    where: str
    num_workers: int
    memory_bytes: int


def way_to_run(prepared: PreparedMerge) -> WayToRun:
    """What `run_merge_job` will choose, as far as this machine tells."""
    plan, job = prepared.plan, prepared.config.job
    if runs_in_this_process(plan, job):
        return WayToRun("this process", _tasks_at_once(job), _memory_bytes(job))
    workers = job.num_workers or _workers_here(job)
    where = f"{workers} Ray workers"
    if job.num_workers is None and cluster_address(job.ray_address):
        where = f"Ray workers, as many as the cluster has room for (here: {workers}, as this machine has)"
    return WayToRun(where, workers, _memory_bytes(job))


def run_merge_job(prepared: PreparedMerge, listener: Listener | None = None) -> MergeSummary:
    """Carry out a prepared merge, in this process or on Ray workers.

    They run where this process is connected already, else on the cluster of `job.ray_address` (or of the Ray job that
    this is), else on one that is started here for the merge.
    """
    job, memory_bytes = prepared.config.job, _memory_bytes(prepared.config.job)
    check_memory(make_bundles(prepared.plan, (), ()), memory_bytes)
    if runs_in_this_process(prepared.plan, job):
        return run_merge(prepared, local_runner(_tasks_at_once(job), memory_bytes), listener or Silent())
    here = ClusterSettings(
        address=job.ray_address or "",
        num_cpus=max(os.cpu_count() or 1, (job.num_workers or 1) * job.threads_per_task),
    )
    with connected(here, setting="job.ray_address", object_store_bytes=_OBJECT_STORE_BYTES):
        num_workers = workers_in_cluster(job, node_resources())
        return run_merge(prepared, ray_runner(num_workers, memory_bytes), listener or Silent())
