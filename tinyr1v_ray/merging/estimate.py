"""How long a merge will take on this machine: a second of measurement, then arithmetic on the plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tinyr1v_ray.merging.plan import MergePlan, TensorTask
from tinyr1v_ray.merging.schedule import makespan_s

_PROBE_SIDE = 1024
_PROBE_ELEMENTS = 1 << 24
_SHA256_BYTES_PER_S = 1.4e9
_XXH3_BYTES_PER_S = 8e9
"""Reading included; both of one core with instructions for SHA."""


@dataclass(frozen=True)
class MachineRates:
    """Of one worker with the plan's threads that has the machine to itself."""

    flops_per_s: float
    bytes_per_s: float
    operation_s: float
    io_bytes_per_s: float = 1.0e9


Clock = Callable[[], float]


def measure_rates(device: str, threads: int, clock: Clock = time.perf_counter) -> MachineRates:
    """Matrix products, elementwise passes beyond the caches, and the cost of starting an operation.

    `clock` may be `time.process_time` where others use the machine and processor seconds are what is asked for.
    """
    torch.set_num_threads(threads)
    square = torch.rand(_PROBE_SIDE, _PROBE_SIDE, device=device)
    product = torch.empty_like(square)
    flops_per_s = 2 * _PROBE_SIDE**3 / _seconds(lambda: torch.mm(square, square, out=product), device, clock)
    long = torch.rand(_PROBE_ELEMENTS, device=device)
    other = torch.rand(_PROBE_ELEMENTS, device=device)
    bytes_per_s = 12 * _PROBE_ELEMENTS / _seconds(lambda: long.add_(other), device, clock)
    tiny = torch.rand(16, device=device)
    operation_s = _seconds(lambda: tiny.add_(1.0), device, clock)
    return MachineRates(flops_per_s, bytes_per_s, operation_s)


def _seconds(action: Callable[[], object], device: str, clock: Clock, budget_s: float = 0.25) -> float:
    """Median of as many runs as fit the budget, after one to warm up."""
    times: list[float] = []
    began = clock()
    while len(times) < 4 or (clock() - began < budget_s and len(times) < 1000):
        start = clock()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return sorted(times[1:])[len(times[1:]) // 2]


def task_seconds(task: TensorTask, rates: MachineRates) -> float:
    """Arithmetic, memory traffic, operations' overhead and file bytes, one after the other."""
    cost = task.cost
    return (
        cost.flops / rates.flops_per_s
        + cost.traffic_bytes / rates.bytes_per_s
        + cost.operations * rates.operation_s
        + (cost.read_bytes + cost.write_bytes) / rates.io_bytes_per_s
        + cost.write_bytes / _XXH3_BYTES_PER_S
        + 1e-3
    )


def merge_seconds(plan: MergePlan, rates: MachineRates, num_workers: int) -> float:
    """The whole merge: tasks longest first on the workers, then hashing of inputs and verification of the output."""
    jobs = [task_seconds(task, rates) for task in plan.tasks]
    read = sum(task.cost.read_bytes for task in plan.tasks)
    hashing = read / _SHA256_BYTES_PER_S + plan.write_bytes / _XXH3_BYTES_PER_S
    return makespan_s(jobs, num_workers) + hashing / max(1, num_workers)
