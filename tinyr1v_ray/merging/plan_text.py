"""A plan for human eyes: what will be done to which tensors, and what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tinyr1v_ray.merging.estimate import MachineRates, merge_seconds
from tinyr1v_ray.merging.plan import MergePlan, TensorTask


def describe_plan(plan: MergePlan, rates: MachineRates | None, num_workers: int) -> list[str]:
    """Lines: tensors by kind and fate, the costliest shapes, flops, memory per worker, disk, estimated time."""
    lines = []
    for name in plan.recipes:
        lines.append(f"recipe {name or plan.recipes[name].method} ({plan.recipes[name].method}):")
        lines += _by_kind(plan, name)
    if plan.refused:
        lines.append(f"not written: {len(plan.refused)}, first {plan.refused[0].name} ({plan.refused[0].reason})")
    for path, sha256 in plan.functions.items():
        lines.append(f"own method   {path} (source {sha256[:12]}); its arithmetic is not known and hardly estimated")
    flops = sum(task.cost.flops for task in plan.tasks)
    read = sum(task.cost.read_bytes for task in plan.tasks)
    memory = max(task.cost.memory_bytes for task in plan.tasks)
    lines += ["costliest shapes:", *_by_shape(plan.tasks, flops)]
    lines.append(f"arithmetic   {_flops(flops)}")
    lines.append(f"memory       {_bytes(memory)} per worker (its largest tensor), {num_workers} workers")
    lines.append(f"reads        {_bytes(read)}")
    lines.append(f"disk         {_bytes(plan.write_bytes)} in {len(plan.shards)} shards")
    if rates is not None:
        seconds = merge_seconds(plan, rates, num_workers)
        lines.append(
            f"time         about {_duration(seconds)} on {num_workers} workers "
            f"({rates.flops_per_s / 1e9:.0f} GFLOP/s and {rates.bytes_per_s / 1e9:.1f} GB/s measured per worker)"
        )
    return lines


def _by_kind(plan: MergePlan, recipe: str) -> list[str]:
    counts: Counter[tuple[str, str, str]] = Counter()
    elements: Counter[tuple[str, str, str]] = Counter()
    for task in plan.tasks:
        for treatment in task.treatments:
            if treatment.recipe == recipe:
                rule = f"{treatment.rule}, {treatment.form} form" if treatment.form else treatment.rule
                key = (task.kind, treatment.action, rule)
                counts[key] += 1
                elements[key] += task.base.numel
    return [
        f"  {kind:<12} {count:>5} tensors {elements[key] / 1e6:>9.1f} M  {key[1]:<9} by {key[2]}"
        for key, count in counts.items()
        for kind in [key[0]]
    ]


def _by_shape(tasks: Sequence[TensorTask], total: int) -> list[str]:
    flops: Counter[tuple[int, ...]] = Counter()
    count: Counter[tuple[int, ...]] = Counter()
    for task in tasks:
        flops[task.shape] += task.cost.flops
        count[task.shape] += 1
    return [
        f"  {' x '.join(str(side) for side in shape):<14} x{count[shape]:<4} {_flops(value)} ({value / total:.0%})"
        for shape, value in flops.most_common(5)
        if value
    ] or ["  none: every tensor is merged entry by entry"]


def _flops(value: float) -> str:
    for unit in ("", "k", "M", "G", "T", "P"):
        if value < 1000:
            return f"{value:.3g} {unit}flop"
        value /= 1000
    return f"{value:.3g} Eflop"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} TiB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
