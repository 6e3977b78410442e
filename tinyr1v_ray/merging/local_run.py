"""Run bundles in threads of this process: what a worker does, without a cluster. Arithmetic releases the GIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import torch

from tinyr1v_ray.files.hashing import file_sha256
from tinyr1v_ray.merging.execute import execute_task
from tinyr1v_ray.merging.plan import MergePlan, input_files
from tinyr1v_ray.merging.schedule import Bundle, Queue
from tinyr1v_ray.merging.session import BundleResult, PreparedMerge
from tinyr1v_ray.merging.tensor_values import require_unchanged


def execute_bundle(plan: MergePlan, bundle: Bundle, folder: Path) -> BundleResult:
    """All tasks of a bundle, or the hash of its file, which must still be the one that was planned with."""
    if bundle.file is not None:
        stamp = input_files(plan)[bundle.file]
        require_unchanged(bundle.file, stamp)
        sha256 = file_sha256(Path(bundle.file))
        require_unchanged(bundle.file, stamp)
        return BundleResult(bundle, sha256=sha256)
    records = tuple((index, tuple(execute_task(plan, index, folder))) for index in bundle.tasks)
    return BundleResult(bundle, records)


def run_in_threads(
    plan: MergePlan,
    folder: Path,
    bundles: Sequence[Bundle],
    on_done: Callable[[BundleResult], None],
    *,
    num_threads: int,
    memory_bytes: int,
) -> None:
    """Up to `num_threads` bundles at once within the memory budget; the first error ends the run and is raised."""
    torch.set_num_threads(plan.threads_per_task)
    queue = Queue(bundles, memory_bytes)
    running: dict[Future[BundleResult], Bundle] = {}
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            while running or len(queue):
                while len(running) < num_threads and (bundle := queue.take()) is not None:
                    running[pool.submit(execute_bundle, plan, bundle, folder)] = bundle
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    queue.finish(running.pop(future))
                    on_done(future.result())
        finally:
            for future in running:
                future.cancel()


def local_runner(num_threads: int, memory_bytes: int) -> Callable[..., None]:
    """A `session.Runner` on this process's threads."""

    def run(
        prepared: PreparedMerge, folder: Path, bundles: Sequence[Bundle], on_done: Callable[[BundleResult], None]
    ) -> None:
        run_in_threads(prepared.plan, folder, bundles, on_done, num_threads=num_threads, memory_bytes=memory_bytes)

    return run
