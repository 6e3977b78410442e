"""Whether actors fit their nodes and GPUs, and which change comes nearest to a run that does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tinyr1v_ray.cluster.assignment import NodeAssignment, PlacedActor, ray_resources
from tinyr1v_ray.cluster.placement import Placement, check_fits
from tinyr1v_ray.cluster.shape import GIB, ClusterShape
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import PlacementError
from tinyr1v_ray.models.shape import ModelShape
from tinyr1v_ray.planning.memory import ActorMemory, EngineNeeds, kv_sequences
from tinyr1v_ray.planning.units import size
from tinyr1v_ray.weight_sync.transports import TRANSPORTS

MAX_NODES = 64
"""Nodes up to which a larger cluster is looked for."""
_PAIRED = 12
"""Candidates, from the first, that are tried two at a time: the search stays within a second or two."""


def placement_problems(placement: Placement, cluster: ClusterShape, config: TrainConfig | None) -> list[str]:
    """What the run itself would refuse to start for: the same checks, on the named cluster's resources.

    `config` is a training's; an evaluation sends no weights.
    """
    problems = []
    checks: list[Callable[[], None]] = [lambda: check_fits(placement, *ray_resources(cluster))]
    if config is not None:
        weights = config.weights
        checks.append(lambda: TRANSPORTS[weights.backend].check_reach(weights, cluster.num_nodes))
    for check in checks:
        try:
            check()
        except PlacementError as error:
            problems.append(str(error))
    return problems


def room_problems(assignment: NodeAssignment) -> list[str]:
    """Actors for which the nodes' remainders are too small, though the sum would do."""
    if not assignment.unplaced:
        return []
    first = assignment.unplaced[0]
    return [
        f"{len(assignment.unplaced)} actors find no node with room, the first is {first.name} "
        f"({first.num_cpus:g} CPUs, {first.num_gpus:g} GPUs); an actor sits on one node; use fewer or larger nodes, or "
        "fewer actors"
    ]


def gpu_problems(assignment: NodeAssignment, memories: Mapping[str, ActorMemory], cluster: ClusterShape) -> list[str]:
    """The first GPU of each combination of actors that would run out of memory at the longest step.

    Where they take turns, one works while the others rest.
    """
    if cluster.accelerator is None:
        return []
    room = cluster.accelerator.memory_gib * GIB
    problems = {}
    taken: dict[tuple[int, int], list[PlacedActor]] = {}
    for place in assignment.places:
        for gpu in place.gpus:
            taken.setdefault((place.node, gpu), []).append(place)
    for _, places in sorted(taken.items(), key=lambda place: place[0]):
        roles = tuple(place.actor.role for place in places)
        alone = [memories[role].most_bytes - memories[role].rest_bytes for role in roles]
        resting = sum(memories[role].rest_bytes for role in roles)
        needed = resting + (max(alone) if any(place.actor.hosts for place in places) else sum(alone))
        if needed > room and roles not in problems:
            names = " and ".join(place.actor.name for place in places)
            problems[roles] = (
                f"{names}: {size(needed)} at the longest step, the {cluster.accelerator.name} has {size(room)}"
            )
    return list(problems.values())


def host_problems(
    assignment: NodeAssignment, memories: Mapping[str, ActorMemory], cluster: ClusterShape, shared_bytes: float
) -> list[str]:
    """Nodes whose main memory is too small. The driver and what passes through memory are counted on the first."""
    room = cluster.host_gib * GIB
    needed = [0.0] * cluster.num_nodes
    needed[0] = memories["driver"].host_bytes + shared_bytes
    for place in assignment.places:
        needed[place.node] += memories[place.actor.role].host_bytes
    for node, amount in enumerate(needed):
        if amount > room:
            return [f"node {node}: {size(amount)} of main memory, it has {size(room)}"]
    return []


def engine_problems(needs: EngineNeeds, shape: ModelShape, memory: ActorMemory) -> list[str]:
    """An engine that could not hold a single sequence, or not be divided among its GPUs."""
    problems = []
    if shape.num_heads % needs.tensor_parallel:
        problems.append(
            f"an engine on {needs.tensor_parallel} GPUs cannot divide {shape.num_heads} attention heads evenly"
        )
    if shape.max_positions and needs.max_length > shape.max_positions:
        problems.append(f"model.max_length {needs.max_length:,} is above the model's {shape.max_positions:,} positions")
    held = kv_sequences(needs, shape, memory.expected["KV cache"])[1]
    if held < 1:
        kv = size(memory.expected["KV cache"])
        problems.append(f"an engine's KV cache ({kv}) holds less than one sequence of {needs.max_length:,} tokens")
    return problems


def nearest_change(
    candidates: Sequence[tuple[str, ...]],
    cluster: ClusterShape,
    still_wrong: Callable[[Sequence[str], ClusterShape], bool],
) -> str:
    """The first change that helps: one candidate, two of the first, more nodes, or both; empty when none does."""
    for combination in [*((one,) for one in candidates), *itertools.combinations(candidates[:_PAIRED], 2)]:
        overrides = [override for candidate in combination for override in candidate]
        if _are_distinct(overrides) and not still_wrong(overrides, cluster):
            return " ".join(overrides)
    for extra in [(), *candidates]:
        if not still_wrong(extra, cluster.with_nodes(MAX_NODES)):
            enough = _fewest_nodes(cluster, partial(still_wrong, extra))
            return " ".join([*extra, f"--cluster {enough}"])
    return ""


def _fewest_nodes(cluster: ClusterShape, still_wrong: Callable[[ClusterShape], bool]) -> ClusterShape:
    """By bisection, given that MAX_NODES are enough."""
    low, high = cluster.num_nodes, MAX_NODES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if still_wrong(cluster.with_nodes(middle)) else (low, middle)
    return cluster.with_nodes(high)


def fewer(number: int) -> list[int]:
    """Some smaller numbers, the largest first.

    >>> fewer(40), fewer(4)
    ([39, 38, 37, 30, 20, 10, 5, 2, 1], [3, 2, 1])
    """
    some = {number - 1, number - 2, number - 3, 3 * number // 4, *(number // 2**power for power in range(1, 13))}
    return sorted((left for left in some if 0 < left < number), reverse=True)


def _are_distinct(overrides: Sequence[str]) -> bool:
    keys = [override.partition("=")[0] for override in overrides]
    return len(keys) == len(set(keys))
