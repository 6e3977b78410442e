"""The plan of one merge: the merge's own plan, made of the folders' headers, or of the model's shapes where the experts
are not trained yet. The only file here that loads torch (the merge's files do)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinyr1v_ray.cluster.shape import GIB, ClusterShape
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.data.model_folder import named_folder
from tinyr1v_ray.files.safetensors_file import Stamp, TensorRef
from tinyr1v_ray.jobs.merge.job import way_to_run
from tinyr1v_ray.merging.accounting import LedgerEntry, build_ledger, open_expert
from tinyr1v_ray.merging.checkpoint_folder import open_checkpoint
from tinyr1v_ray.merging.estimate import MachineRates, measure_rates, merge_seconds
from tinyr1v_ray.merging.names import canonical_name, kind_of
from tinyr1v_ray.merging.plan import MergePlan, make_plan
from tinyr1v_ray.merging.session import PreparedMerge
from tinyr1v_ray.models.shape import ModelShape
from tinyr1v_ray.planning import assumptions as given
from tinyr1v_ray.planning.plan import Plan, PlanRequest, Section, section_lines
from tinyr1v_ray.planning.shapes import find_shape
from tinyr1v_ray.planning.units import count, duration, size

_HOST_SHARE = 0.8
"""Of a node's memory that a merge takes, as the merge itself does."""


def plan_merge(request: PlanRequest, cluster: ClusterShape) -> Plan:
    """The plan of a `tinyr1v merge` configuration; raises ConfigError, ModelError and MergeError."""
    return plan_merge_settings(parse_settings(MergeConfig, dict(request.tree), request.overrides), request, cluster)


def plan_merge_settings(config: MergeConfig, request: PlanRequest, cluster: ClusterShape) -> Plan:
    """The same of settings that are resolved already."""
    base = named_folder(config.base)
    folders = {config.base: base, **{name: Path(name) for name in config.experts}}
    missing = [name for name, folder in folders.items() if not _is_model(folder)]
    if missing:
        ledger = shape_ledger(find_shape(config.base, request.shape), len(config.experts))
    else:
        ledger = build_ledger(open_checkpoint(base), [open_expert(Path(name)) for name in config.experts])
    job = config.job
    merge = make_plan(
        ledger,
        config.named_methods,
        shard_bytes=config.shard_mib << 20,
        device=job.device,
        threads_per_task=job.threads_per_task,
    )
    workers = _num_workers(config, cluster)
    rates = _rates(config, cluster)
    run_s = merge_seconds(merge, rates, workers)
    notes = (
        (f"{', '.join(missing)} not here yet: planned from the model's shapes, experts in float32",) if missing else ()
    )
    gpus = workers if job.device == "cuda" else 0
    problems, change = _problems(merge, config, cluster, workers)
    return Plan(
        kind="merge",
        title=f"merge of {len(config.experts)} experts into {config.output}: {', '.join(_methods(config))}",
        cluster=cluster,
        problems=problems,
        change=change,
        sections=merge_sections(merge, workers, run_s, gpus, f"assumed: {_rate(rates)}"),
        metrics={
            "tensors": len(merge.tasks),
            "flops": sum(task.cost.flops for task in merge.tasks),
            "read_bytes": sum(task.cost.read_bytes for task in merge.tasks),
            "write_bytes": merge.write_bytes,
            "memory_bytes_of_a_worker": _largest(merge),
            "workers": workers,
            "seconds": {"run": run_s},
            "gpu_hours": gpus * run_s / 3600,
        },
        settings=config.model_dump(mode="json"),
        warnings=notes,
    )


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def shape_ledger(shape: ModelShape, num_experts: int) -> list[LedgerEntry]:
    """What `build_ledger` would find: a bfloat16 base as published, experts in float32 as exported."""
    nowhere = Stamp.of(Path(__file__).stat())  # of no weights: a plan's stamps are compared only when it is carried out

    def ref(name: str, dims: tuple[int, ...], dtype: str) -> TensorRef:
        return TensorRef("", name, dtype, dims, 0, math.prod(dims) * {"BF16": 2, "F32": 4}[dtype], nowhere)

    return [
        LedgerEntry(
            canonical_name(name),
            kind_of(canonical_name(name), len(dims)),
            ref(name, dims, "BF16"),
            tuple(ref(name, dims, "F32") for _ in range(num_experts)),
            "merge",
            "",
        )
        for name, dims in shape.tensors
    ]


def _methods(config: MergeConfig) -> Sequence[str]:
    return [name or method.name for name, method in config.named_methods.items()]


def _largest(merge: MergePlan) -> int:
    return max(task.cost.memory_bytes for task in merge.tasks)


def _num_workers(config: MergeConfig, cluster: ClusterShape) -> int:
    """As the job would choose: what is set, else as many as all nodes have room for."""
    a_node = config.job.workers_on(cluster.num_cpus, cluster.num_gpus)
    return config.job.num_workers or max(1, a_node * cluster.num_nodes)


def _rates(config: MergeConfig, cluster: ClusterShape) -> MachineRates:
    """Of one worker, by the data sheet and the assumptions."""
    gpu = cluster.accelerator
    if config.job.device == "cuda" and gpu is not None:
        flops = gpu.fp32_flops_per_s * given.MERGE_FLOPS_SHARE["gpu"]
        return MachineRates(flops, 0.6 * gpu.memory_bytes_per_s, 1e-5, given.MERGE_IO_BYTES_PER_S)
    threads = config.job.threads_per_task
    flops = threads * given.CPU_FLOPS_PER_S * given.MERGE_FLOPS_SHARE["cpu"]
    return MachineRates(flops, given.CPU_BYTES_PER_S, 3e-6, given.MERGE_IO_BYTES_PER_S)


def _problems(
    merge: MergePlan, config: MergeConfig, cluster: ClusterShape, workers: int
) -> tuple[tuple[str, ...], str]:
    """What is too small, and what to change; workers on a node wait for each other's memory, so one must fit."""
    largest = _largest(merge)
    if config.job.device == "cuda" and cluster.accelerator is None:
        return ("job.device is cuda and the cluster has no GPU; a merge worker sits on one",), "job.device=cpu"
    if config.job.device == "cuda" and cluster.accelerator is not None:
        room = cluster.accelerator.memory_gib * GIB
        if largest > room:
            what = f"the largest tensor needs {size(largest)}, the {cluster.accelerator.name} has {size(room)}"
            return (what,), "job.device=cpu"
    room = (config.job.memory_gib or _HOST_SHARE * cluster.host_gib) * GIB
    if largest > room:
        wanted = -(-largest // GIB)
        what = f"the largest tensor needs {size(largest)}, a merge may take {size(room)} of a node"
        needed = (
            f"job.memory_gib={wanted}" if wanted <= cluster.host_gib else f"a node with {wanted / _HOST_SHARE:.0f} GB"
        )
        return (what,), needed
    per_node = -(-workers // cluster.num_nodes)
    places = config.job.workers_on(cluster.num_cpus, cluster.num_gpus)
    if per_node > places:
        what = f"{workers} workers on {cluster.num_nodes} nodes, which have room for {places} each"
        return (what,), f"job.num_workers={max(1, places * cluster.num_nodes)}"
    return (), ""


def dry_run(prepared: PreparedMerge) -> list[str]:
    """What `tinyr1v merge --plan` says of a merge whose inputs are here; measures this machine for a second."""
    merge, way = prepared.plan, way_to_run(prepared)
    rates = measure_rates(merge.device, merge.threads_per_task)
    run_s = merge_seconds(merge, rates, way.num_workers)
    gpus = way.num_workers if merge.device == "cuda" else 0
    lines = [
        line
        for section in merge_sections(merge, way.num_workers, run_s, gpus, f"measured: {_rate(rates)}")
        for line in section_lines(section)
    ]
    if merge.refused:
        lines.append(f"not written: {len(merge.refused)}, first {merge.refused[0].name} ({merge.refused[0].reason})")
    for path, sha256 in merge.functions.items():
        lines.append(f"custom method: {path} (source {sha256[:12]}); its arithmetic is not known and hardly estimated")
    lines.append(f"runs in: {way.where}, at most {size(way.memory_bytes)} for tasks on a node")
    lines += [f"conflict: {line}" for line in prepared.conflicts]
    lines += [f"warning: {line}" for line in prepared.warnings]
    return [*lines, f"output: {prepared.output}"]


def merge_sections(merge: MergePlan, workers: int, run_s: float, gpus: int, rates_source: str) -> tuple[Section, ...]:
    """Time, memory and disk; what becomes of which tensors, by method; which shapes take the time."""
    largest, read = _largest(merge), sum(task.cost.read_bytes for task in merge.tasks)
    rows = [
        ("the merge", duration(run_s), f"{workers} workers; {rates_source}"),
        *([("GPU-hours", f"{gpus * run_s / 3600:,.2f}", "")] if gpus else []),
        ("arithmetic", f"{count(sum(task.cost.flops for task in merge.tasks))}flop", ""),
        ("memory of a worker", size(largest), "its largest tensor"),
        ("reads", size(read), "base and experts"),
        ("free space needed", size(merge.write_bytes), f"{len(merge.shards)} files"),
    ]
    return (Section("Time, memory, disk", tuple(rows), numeric=(1,)), *_tensor_sections(merge))


def _tensor_sections(merge: MergePlan) -> Iterator[Section]:
    for position, (name, method) in enumerate(merge.methods.items()):
        numbers: Counter[tuple[str, str, str]] = Counter()
        elements: Counter[tuple[str, str, str]] = Counter()
        for task in merge.tasks:
            treatment = task.treatments[position]
            rule = f"{treatment.rule}, {treatment.form} form" if treatment.form else treatment.rule
            key = (task.kind, treatment.action, rule)
            numbers[key] += 1
            elements[key] += task.base.numel
        rows = tuple(
            (kind, f"{number} tensors", f"{count(elements[kind, action, rule])}", f"{action} by {rule}")
            for (kind, action, rule), number in numbers.items()
        )
        yield Section(f"Tensors of {name or method.name}", rows, numeric=(1, 2))
    flops: Counter[tuple[int, ...]] = Counter()
    for task in merge.tasks:
        flops[task.shape] += task.cost.flops
    total = sum(flops.values())
    shapes = tuple(
        (" x ".join(str(side) for side in shape), f"{count(value)}flop", f"{value / total:.0%}")
        for shape, value in flops.most_common(5)
        if value
    )
    if shapes:
        yield Section("Costliest shapes", shapes, numeric=(1, 2))


def _rate(rates: MachineRates) -> str:
    return f"{rates.flops_per_s / 1e9:,.0f} GFLOP/s and {rates.bytes_per_s / 1e9:,.1f} GB/s a worker"
