"""The merge on real Ray workers: same bytes whatever their number, and whatever dies."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from tiny_models import write_expert

from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.errors import MergeError, PlacementError
from tinyr1v_ray.jobs.merge import job as merge_job
from tinyr1v_ray.merging.session import BundleResult, Silent

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

SLOW = {"amm": {"steps": 150}}
"""Long enough to be hit."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, so that the node that is lost in the end is not the one that knows everything."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    made.main_node = made.add_node(num_cpus=4, object_store_memory=80 << 20)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def config(tied_base: Path, experts: list[Path], tmp_path: Path) -> dict:
    return {"base": str(tied_base), "experts": [str(e) for e in experts], "output": str(tmp_path / "merged")}


def merge(config: dict, num_workers: int, listener: Silent | None = None, **job: object) -> bytes:
    tree = config | {"job": {"num_workers": num_workers, "memory_gib": 1, "max_attempts": 20} | job}
    prepared = merge_job.prepare(MergeConfig.model_validate(tree))
    summary = merge_job.run_merge_job(prepared, listener)
    return (summary.output / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def slow_bytes(tied_base: Path, experts: list[Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    base = {"base": str(tied_base), "experts": [str(e) for e in experts], "output": str(folder / "merged")}
    return merge(base | {"method": SLOW}, 0)


def test_bytes_do_not_depend_on_the_number_of_workers(
    cluster: Cluster, config: dict, slow_bytes: bytes, tmp_path: Path
) -> None:
    for num_workers in (1, 2, 4):
        assert merge(config | {"method": SLOW, "output": str(tmp_path / str(num_workers))}, num_workers) == slow_bytes


def workers() -> list[psutil.Process]:
    """The merge workers that descend from this process."""
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::merge"):
                found.append(process)
        except psutil.Error:
            continue
    return found


class Striking(Silent):
    """Calls `strike` in a thread of its own after a few bundles; says whether it did."""

    def __init__(self, strike: Callable[[], None], after: set[int]) -> None:
        self.strike, self.after, self.seen = strike, after, 0
        self.seen_when_struck: list[int] = []
        self._threads: list[threading.Thread] = []

    def on_result(self, result: BundleResult) -> None:
        self.seen += 1
        if self.seen in self.after:
            self._threads.append(threading.Thread(target=self._strike))
            self._threads[-1].start()

    def _strike(self) -> None:
        self.strike()
        self.seen_when_struck.append(self.seen)

    def require_struck_while_running(self) -> None:
        for thread in self._threads:
            thread.join(60)
        assert len(self.seen_when_struck) == len(self.after) and min(self.seen_when_struck) < self.seen


def test_workers_killed_at_random_moments(cluster: Cluster, config: dict, slow_bytes: bytes) -> None:
    chance = random.Random(5)
    killed = []

    def strike() -> None:
        time.sleep(chance.random() * 0.2)
        alive = workers()
        if alive:
            victim = chance.choice(alive)
            victim.kill()
            killed.append(victim.pid)

    listener = Striking(strike, {1, 2})
    assert merge(config | {"method": SLOW}, 2, listener) == slow_bytes
    listener.require_struck_while_running()
    assert killed


def test_a_lost_node(cluster: Cluster, config: dict, slow_bytes: bytes) -> None:
    node = cluster.add_node(num_cpus=4, object_store_memory=80 << 20)
    cluster.wait_for_nodes()
    listener = Striking(lambda: cluster.remove_node(node, allow_graceful=False), {2})
    # more workers than one node holds, so that both nodes have some
    assert merge(config | {"method": SLOW}, 5, listener) == slow_bytes
    listener.require_struck_while_running()


def test_a_task_that_always_kills_its_worker(
    cluster: Cluster, config: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed each time it starts something: after `max_attempts` the merge ends, and can be continued."""
    from tinyr1v_ray.cluster import merge_workers

    class Doomed(merge_workers.MergeWorker):
        def run(self, bundle: object) -> BundleResult:
            os._exit(1)

    monkeypatch.setattr(merge_workers, "MergeWorker", Doomed)
    with pytest.raises(merge_workers.MergeWorkerLost, match="died 2 times"):
        merge(config | {"method": {"name": "average"}}, 1, max_attempts=2)
    monkeypatch.undo()
    assert (tmp_path / ".merged.partial").is_dir()
    merge(config | {"method": {"name": "average"}}, 1)
    assert not (tmp_path / ".merged.partial").exists()


def test_a_worker_s_error_reaches_the_user(cluster: Cluster, config: dict, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    broken = write_expert(Path(config["base"]), tmp_path / "broken", seed=1)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(MergeError, match=r"norm\.weight of expert 3 holds NaN"):
        merge(config | {"experts": [*config["experts"], str(broken)], "method": {"name": "average"}}, 2)
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / ".merged.partial").exists()


LOWEST = """
import torch

def lowest(task_vectors):
    return torch.stack(task_vectors).min(dim=0).values
"""


def test_workers_find_the_user_s_own_method_and_refuse_another(
    cluster: Cluster, config: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "merges_for_workers.py"
    module.write_text(LOWEST)
    monkeypatch.syspath_prepend(tmp_path)
    config |= {"method": {"name": "function", "function": "merges_for_workers:lowest"}}
    here = merge(config | {"output": str(tmp_path / "here")}, 0)
    assert merge(config | {"output": str(tmp_path / "there")}, 2) == here

    tree = config | {"job": {"num_workers": 1, "memory_gib": 1}}
    prepared = merge_job.prepare(MergeConfig.model_validate(tree))
    module.write_text(LOWEST.replace("min", "max"))
    with pytest.raises(MergeError, match="merges_for_workers:lowest has another source here"):
        merge_job.run_merge_job(prepared)
    assert not (tmp_path / "merged").exists()
    module.write_text(LOWEST)
    assert merge(config, 2) == here


def test_more_cpus_than_any_node_has(cluster: Cluster, config: dict) -> None:
    with pytest.raises(PlacementError, match="64 CPUs"):
        merge(config, 1, threads_per_task=64)
