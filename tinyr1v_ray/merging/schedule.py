"""Which work runs next: longest first, as long as it fits the memory that is left. Pure.

Small tensors are bundled, so that hundreds of norms and biases do not cost hundreds of messages.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tinyr1v_ray.errors import PlacementError
from tinyr1v_ray.merging.plan import MergePlan, TensorTask, input_files

_BUNDLE_FLOPS = 2_000_000_000
_BUNDLE_BYTES = 64 << 20
_MIN_BUNDLES = 64
"""Of a model too small to fill that many: work for all workers, and progress to be seen."""
_HASH_MEMORY_BYTES = 8 << 20


@dataclass(frozen=True)
class Bundle:
    """Tasks done one after the other by one worker, or one input file to hash. Weight in flops, then bytes."""

    tasks: tuple[int, ...]
    file: str | None
    flops: int
    io_bytes: int
    memory_bytes: int


def make_bundles(plan: MergePlan, done: Collection[int], hashed: Collection[str]) -> list[Bundle]:
    """What is left to do, longest first; input files are hashed last, beside the tail of small tasks."""
    bundles: list[Bundle] = []
    open_: list[int] = []
    flops = io_bytes = memory = 0
    left = [task for task in plan.longest_first if task.index not in done]
    enough_flops = min(_BUNDLE_FLOPS, sum(task.cost.flops for task in left) / _MIN_BUNDLES)
    enough_bytes = min(_BUNDLE_BYTES, sum(_io_bytes(task) for task in left) / _MIN_BUNDLES)
    for task in left:
        cost = task.cost
        open_.append(task.index)
        flops += cost.flops
        io_bytes += _io_bytes(task)
        memory = max(memory, cost.memory_bytes)
        if flops >= enough_flops > 0 or io_bytes >= enough_bytes:
            bundles.append(Bundle(tuple(open_), None, flops, io_bytes, memory))
            open_, flops, io_bytes, memory = [], 0, 0, 0
    if open_:
        bundles.append(Bundle(tuple(open_), None, flops, io_bytes, memory))
    for file in input_files(plan):
        if file not in hashed:
            bundles.append(Bundle((), file, 0, 0, _HASH_MEMORY_BYTES))
    return bundles


def check_memory(bundles: Sequence[Bundle], memory_bytes: int) -> None:
    """Raise PlacementError when one bundle alone exceeds the budget."""
    largest = max(bundles, key=lambda b: b.memory_bytes, default=None)
    if largest is not None and largest.memory_bytes > memory_bytes:
        raise PlacementError(
            f"the largest tensor task needs {largest.memory_bytes / 2**30:.2f} GiB, the budget is "
            f"{memory_bytes / 2**30:.2f} GiB; a task must fit; raise job.memory_gib or merge on a larger node"
        )


def _io_bytes(task: TensorTask) -> int:
    return task.cost.read_bytes + task.cost.write_bytes


class Queue:
    """Hands out bundles within a memory budget per node; a bundle given back (its worker died) comes first again."""

    def __init__(self, bundles: Sequence[Bundle], memory_bytes: int) -> None:
        """Raises PlacementError when one bundle alone exceeds the budget."""
        check_memory(bundles, memory_bytes)
        self._pending = list(bundles)
        self._budget = memory_bytes
        self._used: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def take(self, node: str = "") -> Bundle | None:
        """The longest pending bundle that fits beside what runs on that node; None where none does."""
        free = self._budget - self._used.get(node, 0)
        for position, bundle in enumerate(self._pending):
            if bundle.memory_bytes <= free:
                self._used[node] = self._used.get(node, 0) + bundle.memory_bytes
                return self._pending.pop(position)
        return None

    def finish(self, bundle: Bundle, node: str = "") -> None:
        """Its memory is free again."""
        self._used[node] -= bundle.memory_bytes

    def give_back(self, bundle: Bundle, node: str = "") -> None:
        """Its worker died: free the memory and put it first."""
        self.finish(bundle, node)
        self._pending.insert(0, bundle)


def makespan_s(seconds: Sequence[float], num_workers: int) -> float:
    """Time until the last of `num_workers` is done when each takes the longest job left.

    Worked example: jobs of 3, 3, 2, 2 and 2 s on two workers take 7 s (3 + 2 + 2 beside 3 + 2).
    """
    finish_s = [0.0] * max(1, num_workers)
    for job_s in sorted(seconds, reverse=True):
        heapq.heapreplace(finish_s, finish_s[0] + job_s)
    return max(finish_s)
