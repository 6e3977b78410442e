"""Merge workers on Ray: actors that take bundles of tensor tasks; a plan and paths travel, weights never do.

A worker that dies (killed, out of memory, its node gone) gives its bundle back and is replaced; what it had half
written is simply written again, in the same place and with the same bytes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from tinyr1v_ray.cluster.handle import Handle, spawn
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.config.merge import JobConfig
from tinyr1v_ray.errors import DeadlineError, PlacementError, TinyR1VError
from tinyr1v_ray.merging.local_run import execute_bundle
from tinyr1v_ray.merging.plan import MergePlan
from tinyr1v_ray.merging.schedule import Bundle, Queue
from tinyr1v_ray.merging.session import BundleResult, PreparedMerge

_log = logging.getLogger(__name__)
_START_TIMEOUT_S = 180.0
_POLL_S = 1.0


class MergeWorker:
    """One process with the plan's thread count; the plan is stored once for all of them."""

    def __init__(self, plan: ray.ObjectRef, folder: Path) -> None:
        self._plan, self._folder = ray.get(plan), folder

    def node(self) -> str:
        """Where it runs: memory is budgeted per node. Answering also says that it has started."""
        return ray.get_runtime_context().get_node_id()

    def run(self, bundle: Bundle) -> BundleResult:
        """Carry out its tasks."""
        return execute_bundle(self._plan, bundle, self._folder)


@dataclass
class _Slot:
    """A worker's place: the actor in it may be replaced."""

    number: int
    worker: Handle[MergeWorker] | None = None
    node: str | None = None
    bundle: Bundle | None = None
    since_s: float = 0.0
    num_failed_starts: int = 0


class WorkerPool:
    """Keeps `num_workers` actors busy until the queue is empty. `run` may be called once."""

    def __init__(self, plan: MergePlan, folder: Path, job: JobConfig, num_workers: int) -> None:
        self._plan = plan
        self._job = job
        self._build = partial(MergeWorker, ray.put(plan), folder)
        self._slots = [_Slot(number) for number in range(num_workers)]
        self._refs: dict[Any, _Slot] = {}
        self._attempts: dict[Bundle, int] = {}

    def run(self, bundles: Sequence[Bundle], memory_bytes: int, on_done: Callable[[BundleResult], None]) -> None:
        """Carry out all bundles; raises what a task raised, or MergeWorkerLost when one keeps killing its worker."""
        queue = Queue(bundles, memory_bytes)
        for slot in self._slots[: max(1, len(queue))]:
            self._start(slot)
        while len(queue) or any(slot.bundle for slot in self._slots):
            self._hand_out(queue)
            ready, _ = ray.wait(list(self._refs), num_returns=1, timeout=_POLL_S)
            for ref in ready:
                self._collect(ref, queue, on_done)
            self._check_deadlines()

    def stop(self) -> None:
        """End the actors; safe to call at any time."""
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.kill()
                slot.worker = None
        self._refs.clear()

    def _start(self, slot: _Slot) -> None:
        threads, num_gpus = self._plan.threads_per_task, 1 if self._plan.device == "cuda" else 0
        spec = ActorSpec("merge", slot.number, threads, num_gpus, threads)
        slot.worker = spawn(spec, self._build)
        slot.node, slot.bundle, slot.since_s = None, None, time.monotonic()
        self._refs[slot.worker.submit(MergeWorker.node)] = slot

    def _hand_out(self, queue: Queue) -> None:
        for slot in self._slots:
            if slot.worker is None or slot.node is None or slot.bundle is not None:
                continue
            bundle = queue.take(slot.node)
            if bundle is None:
                continue
            slot.bundle, slot.since_s = bundle, time.monotonic()
            self._attempts[bundle] = self._attempts.get(bundle, 0) + 1
            self._refs[slot.worker.submit(MergeWorker.run, bundle)] = slot

    def _collect(self, ref: Any, queue: Queue, on_done: Callable[[BundleResult], None]) -> None:
        slot = self._refs.pop(ref)
        try:
            answer = ray.get(ref)
        except RayActorError as error:
            self._replace(slot, queue, error)
            return
        except RayTaskError as error:
            raise error.cause from error
        if isinstance(answer, str):
            slot.node, slot.num_failed_starts = answer, 0
            return
        assert slot.bundle is not None and slot.node is not None
        queue.finish(slot.bundle, slot.node)
        slot.bundle = None
        on_done(answer)

    def _replace(self, slot: _Slot, queue: Queue, error: RayActorError) -> None:
        bundle = slot.bundle
        if bundle is not None and slot.node is not None:
            queue.give_back(bundle, slot.node)
            name = self._plan.tasks[bundle.tasks[0]].name if bundle.tasks else bundle.file
            if self._attempts[bundle] >= self._job.max_attempts:
                raise MergeWorkerLost(
                    f"worker {slot.number} died {self._attempts[bundle]} times on {name} "
                    f"({bundle.memory_bytes / 2**30:.2f} GiB); a task has {self._job.max_attempts} attempts; "
                    "give it more memory or lower job.memory_gib, then start the same merge again"
                )
            _log.warning("merge worker %d died on %s; it is replaced", slot.number, name)
        if slot.node is None:
            slot.num_failed_starts += 1
            if slot.num_failed_starts >= self._job.max_attempts:
                raise MergeWorkerLost(
                    f"worker {slot.number} died {slot.num_failed_starts} times while starting: "
                    f"{' '.join(str(error).split())[:300]}; the package must be on its node; see its log"
                )
        self._start(slot)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        if all(slot.node is None for slot in self._slots) and now - self._slots[0].since_s > _START_TIMEOUT_S:
            raise PlacementError(
                f"no merge worker started within {_START_TIMEOUT_S:.0f} s; each needs {self._plan.threads_per_task} "
                f"CPUs ({self._plan.device}); lower job.threads_per_task or give the cluster more"
            )
        for slot in self._slots:
            if slot.bundle is not None and now - slot.since_s > self._job.task_timeout_s:
                name = self._plan.tasks[slot.bundle.tasks[0]].name if slot.bundle.tasks else slot.bundle.file
                raise DeadlineError(
                    f"merge worker {slot.number} has not finished {name} in {self._job.task_timeout_s:.0f} s; "
                    "a task has that long; raise job.task_timeout_s"
                )


class MergeWorkerLost(TinyR1VError, RuntimeError):
    """A task's worker died again and again. The work so far is kept for a resumed merge."""


def ray_runner(num_workers: int, memory_bytes: int) -> Callable[..., None]:
    """A `session.Runner` on a Ray cluster that is already connected."""

    def run(
        prepared: PreparedMerge, folder: Path, bundles: Sequence[Bundle], on_done: Callable[[BundleResult], None]
    ) -> None:
        pool = WorkerPool(prepared.plan, folder, prepared.config.job, num_workers)
        try:
            pool.run(bundles, memory_bytes, on_done)
        finally:
            pool.stop()

    return run
