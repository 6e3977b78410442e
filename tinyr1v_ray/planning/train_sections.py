"""A training's plan as tables and as metrics."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from tinyr1v_ray.cluster.assignment import NodeAssignment, describe_places
from tinyr1v_ray.cluster.shape import ClusterShape
from tinyr1v_ray.planning.assumptions import PEAK_STEP
from tinyr1v_ray.planning.memory import ActorMemory
from tinyr1v_ray.planning.plan import Section
from tinyr1v_ray.planning.throughput import UNKNOWN, StepTime
from tinyr1v_ray.planning.train_design import TrainDesign
from tinyr1v_ray.planning.units import count, duration, size
from tinyr1v_ray.planning.workload import StepLoad


def train_sections(design: TrainDesign, time: StepTime | None) -> tuple[Section, ...]:
    """What matters first: time, then placement, memory, the batch, the disk."""
    return (
        _time_section(design, time),
        placement_section(design.assignment, design.cluster),
        *memory_sections(list(design.memories.values()), by_turns=design.config.placement.colocate),
        _batch_section(design),
        _disk_section(design),
    )


def num_gpus(design: TrainDesign) -> float:
    """GPUs that the run reserves."""
    return sum(actor.num_gpus for actor in design.placement.actors)


def _time_section(design: TrainDesign, time: StepTime | None) -> Section:
    if time is None:
        return Section("Time", ((UNKNOWN,),))
    gpus = num_gpus(design)
    overlap = "the longer of generate and the rest" if time.overlapped else "one after the other"
    overlap += ", each on all GPUs" if design.config.placement.colocate and gpus else ""
    rows = [
        ("a step", duration(time.step_s), overlap),
        ("  generate", duration(time.generate_s), ""),
        ("  learn", duration(time.learn_s), ""),
        ("  publish weights", duration(time.publish_s), ""),
        ("throughput", f"{count(design.work.expected.completion_tokens / time.step_s)}/s", "completion tokens"),
        ("the run", duration(time.run_s), f"{time.num_steps} steps and held-out answers; its start comes before"),
    ]
    if gpus:
        rows.append(("GPU-hours", f"{gpus * time.run_s / 3600:,.1f}", f"{gpus:g} GPUs reserved"))
    return Section("Time", tuple(rows), numeric=(1,), footer=time.source)


def placement_section(assignment: NodeAssignment, cluster: ClusterShape) -> Section:
    """Placement; nodes in a row with as many actors of each kind on the same GPUs share a line."""
    nodes = assignment.by_node(cluster.num_nodes)
    rows: list[tuple[str, str]] = []

    def layout(node: int) -> tuple[bool, list[tuple[str, tuple[int, ...]]]]:
        return node == 0, [(place.actor.role, place.gpus) for place in nodes[node]]  # the driver is on the first

    for (has_driver, _), group in groupby(range(len(nodes)), layout):
        alike = list(group)
        named = f"node {alike[0]}" if len(alike) == 1 else f"nodes {alike[0]} to {alike[-1]}"
        told = describe_places([place for node in alike for place in nodes[node]]) or "nothing"
        rows.append((named, f"driver, {told}" if has_driver else told))
    if assignment.unplaced:
        names = [actor.name for actor in assignment.unplaced]
        rows.append(("no room", names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)} actors)"))
    return Section("Placement", tuple(rows))


def memory_sections(memories: list[ActorMemory], by_turns: bool = False) -> list[Section]:
    """One table for actors with parts, one for main memory; `by_turns`: engines and ranks share GPUs."""
    rows: list[tuple[str, ...]] = []
    for memory in memories:
        if memory.role in ("driver", "scorer"):
            continue
        where = "GPU" if memory.on_gpu else "main memory"
        name = f"{memory.role} ({memory.count} x, {where})"
        rows.append((name, size(memory.expected_bytes), size(memory.most_bytes)))
        for part in memory.most:
            rows.append((f"  {part}", size(memory.expected.get(part, 0.0)), size(memory.most[part])))
        if by_turns and memory.on_gpu:
            rows.append(("  of it, while the other works", size(memory.rest_bytes), size(memory.rest_bytes)))
        rows += [(f"  {note}", "", "") for note in memory.notes]
    host = [
        (f"{memory.role} ({memory.count} x)", size(memory.host_bytes), size(memory.count * memory.host_bytes))
        for memory in memories
    ]
    header = ("", "longest step", "at most")
    return [
        Section("Memory of an actor", tuple(rows), header, (1, 2), _memory_footer(memories)),
        Section("Main memory", tuple(host), ("", "each", "together"), (1, 2)),
    ]


def _memory_footer(memories: list[ActorMemory]) -> str:
    """What the two columns are, and how well they are known."""
    words = f"longest step: completions {PEAK_STEP:g} times the mean; at most: all as long as the settings allow"
    if any(memory.on_gpu for memory in memories):
        return f"{words}. GPU memory is computed from shapes and allowances; it was never compared with a measurement."
    return f"{words}. Libraries are measured footprints."


def _batch_section(design: TrainDesign) -> Section:
    config, work = design.config, design.work
    expected, most = work.expected, work.most
    staleness = config.run.max_staleness

    def row(name: str, number: Any) -> tuple[str, str, str]:
        return name, count(number(expected)), count(number(most))

    rows = (
        (
            "prompts x completions",
            f"{expected.num_prompts:,} x {expected.num_completions} = {expected.num_rows:,}",
            "",
        ),
        row("tokens of a prompt", lambda load: load.lengths.prompt),
        row("  image tokens of it", lambda load: load.lengths.image),
        row("tokens of a completion", lambda load: load.lengths.completion),
        row("completion tokens a step", lambda load: load.completion_tokens),
        row("tokens a step", lambda load: load.tokens),
        row("  that the learner computes", lambda load: load.shared_tokens),
        ("minibatches a step", f"{expected.num_minibatches} of {_per_minibatch(expected)} prompts", ""),
        row("groups of a rank in one", lambda load: load.micro.num_groups_per_rank),
        row("micro-batches of a rank", lambda load: load.micro.num_micro_batches),
        row("tokens of a micro-batch", lambda load: load.micro.tokens),
        (
            "staleness",
            f"at most {staleness} version{'s' * (staleness != 1)}" if staleness else "none: on-policy",
            f"{work.window_groups:,} groups under way",
        ),
    )
    lengths = "expected lengths are assumed unless --expect or --recorded gave them"
    return Section("Batch", rows, ("", "expected", "at most"), (1, 2), lengths)


def _per_minibatch(load: StepLoad) -> str:
    return f"{load.num_prompts // load.num_minibatches:,}"


def _disk_section(design: TrainDesign) -> Section:
    disk, checkpoint = design.disk_bytes, design.config.checkpoint
    rows = [
        ("a checkpoint", size(disk["one"]), f"every {checkpoint.every_n_steps} steps"),
        ("kept", size(disk["kept"]), f"{checkpoint.keep_last} checkpoints; one more while it is written"),
    ]
    if disk["best"]:
        rows.append(("the best model", size(disk["best"]), "float32, two copies while it changes"))
    if checkpoint.export:
        rows.append(("the specialist", size(disk["export"]), "float32"))
    total = design.total_disk_bytes
    rows.append(("free space needed", size(total), f"in {design.config.run.folder}"))
    return Section("Disk", tuple(rows), numeric=(1,))


def train_metrics(design: TrainDesign, time: StepTime | None) -> dict[str, Any]:
    """The same for machines."""
    expected, most = design.work.expected, design.work.most
    disk = design.disk_bytes
    return {
        "num_parameters": design.shape.num_parameters,
        "placement": placement_metrics(design.assignment),
        "memory": [memory_metrics(memory) for memory in design.memories.values()],
        "disk_bytes": design.total_disk_bytes,
        "checkpoint_bytes": disk["one"],
        "export_bytes": disk["export"],
        "batch": {name: _load_metrics(load) for name, load in (("expected", expected), ("most", most))},
        "max_staleness": design.config.run.max_staleness,
        "window_groups": design.work.window_groups,
        **(_time_metrics(design, time) if time else {}),
    }


def _time_metrics(design: TrainDesign, time: StepTime) -> dict[str, Any]:
    return {
        "seconds": {
            "generate": time.generate_s,
            "learn": time.learn_s,
            "publish": time.publish_s,
            "step": time.step_s,
            "run": time.run_s,
        },
        "gpu_hours": num_gpus(design) * time.run_s / 3600,
        "throughput_source": time.source,
    }


def placement_metrics(assignment: NodeAssignment) -> list[dict[str, Any]]:
    """Where each actor lies; node None for one without a place."""
    placed = [
        {"actor": place.actor.name, "node": place.node, "gpus": list(place.gpus), "cpus": place.actor.num_cpus}
        for place in assignment.places
    ]
    return placed + [
        {"actor": actor.name, "node": None, "gpus": [], "cpus": actor.num_cpus} for actor in assignment.unplaced
    ]


def memory_metrics(memory: ActorMemory) -> dict[str, Any]:
    """Bytes by part."""
    return {
        "role": memory.role,
        "count": memory.count,
        "on_gpu": memory.on_gpu,
        "expected_bytes": dict(memory.expected),
        "most_bytes": dict(memory.most),
        "host_bytes": memory.host_bytes,
    }


def _load_metrics(load: StepLoad) -> dict[str, float]:
    return {
        "prompts": load.num_prompts,
        "completions_of_a_prompt": load.num_completions,
        "prompt_tokens": load.lengths.prompt,
        "image_tokens": load.lengths.image,
        "completion_tokens": load.lengths.completion,
        "completion_tokens_a_step": load.completion_tokens,
        "tokens_a_step": load.tokens,
        "learner_tokens_a_step": load.shared_tokens,
        "minibatches": load.num_minibatches,
        "groups_of_a_rank": load.micro.num_groups_per_rank,
        "micro_batches_of_a_rank": load.micro.num_micro_batches,
        "micro_batch_tokens": load.micro.tokens,
    }
