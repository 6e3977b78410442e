"""How many workers a merge gets: what the cluster has room for, whatever the machine that asks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import ray

from tinyr1v_ray.cluster.shape import parse_cluster
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.merge import JobConfig, MergeConfig
from tinyr1v_ray.errors import PlacementError
from tinyr1v_ray.jobs.merge import job as merge_job
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.planning.make import make_plan
from tinyr1v_ray.planning.merge_plan import dry_run
from tinyr1v_ray.planning.plan import PlanRequest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CPU_NODE, GPU_NODE = {"CPU": 15.0, "memory": 1e9}, {"CPU": 96.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("job", "nodes", "workers"),
    [
        ({}, [{"CPU": 2.0}] + 25 * [{"CPU": 16.0}], 402),
        ({"threads_per_task": 4}, [CPU_NODE, CPU_NODE], 6),
        ({"threads_per_task": 4, "num_workers": 2}, [CPU_NODE, CPU_NODE], 2),
        ({"device": "cuda"}, [CPU_NODE, GPU_NODE, GPU_NODE], 16),
        ({"device": "cuda", "threads_per_task": 24}, [GPU_NODE], 4),
    ],
)
def test_a_merge_gets_as_many_workers_as_the_nodes_have_room_for(job: dict, nodes: list, workers: int) -> None:
    assert merge_job.workers_in_cluster(JobConfig(**job), nodes) == workers


@pytest.mark.parametrize("job", [{"threads_per_task": 16}, {"device": "cuda"}, {"device": "cuda", "num_workers": 3}])
def test_a_cluster_without_room_for_one_worker_is_refused(job: dict) -> None:
    with pytest.raises(PlacementError, match=r"no node has .* for a merge worker"):
        merge_job.workers_in_cluster(JobConfig(**job), [CPU_NODE, CPU_NODE])


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    """Merging a model with itself."""
    expert = shutil.copytree(base_model_folder(), tmp_path / "expert")
    method = {"name": "average"}
    return {"base": "miniature", "experts": [str(expert)], "output": str(tmp_path / "merged"), "method": method}


@pytest.mark.parametrize("job", [{}, {"threads_per_task": 4}])
def test_the_plan_counts_as_the_job_does(config: dict[str, object], job: dict) -> None:
    request = PlanRequest(None, config | {"job": job}, cluster=parse_cluster("3xcpu9-64GB"))
    nodes = 3 * [{"CPU": 9.0}]
    assert make_plan(request).metrics["workers"] == merge_job.workers_in_cluster(JobConfig(**job), nodes)


def test_a_named_cluster_is_asked_for_its_room(config: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not this machine, whose cores are none of the cluster's."""
    asked: list[int] = []
    ray_runner = merge_job.ray_runner

    def recording(num_workers: int, memory_bytes: int) -> object:
        asked.append(num_workers)
        return ray_runner(num_workers, memory_bytes)

    monkeypatch.setattr(merge_job, "ray_runner", recording)
    monkeypatch.setattr(merge_job.os, "cpu_count", lambda: 1)
    settings = parse_settings(MergeConfig, config, ["job.ray_address=auto", "job.memory_gib=1"])
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        summary = merge_job.run_merge_job(merge_job.prepare(settings))
    finally:
        ray.shutdown()
    assert asked == [3] and (summary.output / "model.safetensors").is_file()


def test_the_dry_run_says_that_the_cluster_decides(config: dict[str, object]) -> None:
    here = merge_job.prepare(parse_settings(MergeConfig, config))
    there = merge_job.prepare(parse_settings(MergeConfig, config, ["job.ray_address=head:6379"]))
    assert any(line.startswith("runs in: this process, at most") for line in dry_run(here))
    assert any("as many as the cluster has room for" in line for line in dry_run(there))


def test_a_home_is_the_same_folder_wherever_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("base", "expert"):
        shutil.copytree(base_model_folder(), tmp_path / name)
    tree = {"base": "~/base", "experts": ["~/expert"], "output": "~/merged", "method": {"name": "average"}}
    prepared = merge_job.prepare(parse_settings(MergeConfig, tree))
    assert (prepared.base, prepared.output) == (tmp_path / "base", tmp_path / "merged")
    assert prepared.experts == (tmp_path / "expert",)
