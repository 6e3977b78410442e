"""The actors of a placement on the nodes and GPUs of a cluster, first fit.

Ray may number them otherwise; what matters is whether all of them find room, and how much of a node they fill.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tinyr1v_ray.cluster.placement import ActorSpec, Placement
from tinyr1v_ray.cluster.shape import ClusterShape

_ROUNDING = 1e-6


@dataclass(frozen=True)
class PlacedActor:
    """An actor's place; `gpus` are numbered on their node."""

    actor: ActorSpec
    node: int
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class NodeAssignment:
    """All actors; `unplaced` are those for which no node has room."""

    places: tuple[PlacedActor, ...]
    unplaced: tuple[ActorSpec, ...]

    def by_node(self, num_nodes: int) -> list[list[PlacedActor]]:
        """The actors of each node."""
        nodes: list[list[PlacedActor]] = [[] for _ in range(num_nodes)]
        for place in self.places:
            nodes[place.node].append(place)
        return nodes


@dataclass
class Node:
    """What is free of a node: cores, and the share of each GPU."""

    cpus: float
    gpus: list[float]

    def take(self, actor: ActorSpec) -> tuple[int, ...] | None:
        """The GPUs that an actor gets here (none for one without); None where there is no room."""
        if actor.num_cpus > self.cpus + _ROUNDING:
            return None
        share = actor.num_gpus if actor.num_gpus < 1 else 1.0
        wanted = 0 if actor.num_gpus <= 0 else max(1, round(actor.num_gpus))
        free = [index for index, left in enumerate(self.gpus) if left + _ROUNDING >= share][:wanted]
        if len(free) < wanted:
            return None
        self.cpus -= actor.num_cpus
        for index in free:
            self.gpus[index] -= share
        return tuple(free)


def assign_nodes(placement: Placement, cluster: ClusterShape) -> NodeAssignment:
    """Every actor of a placement on a cluster that nobody uses yet."""
    nodes = [Node(float(cluster.num_cpus), [1.0] * cluster.num_gpus) for _ in range(cluster.num_nodes)]
    return _assign_teams([_share(team) for team in placement.teams], nodes)


def first_fit(actors: Iterable[ActorSpec], nodes: Sequence[Node]) -> NodeAssignment:
    """In the order in which actors are started (learners first), full nodes before the next; `nodes` are filled."""
    places: list[PlacedActor] = []
    unplaced: list[ActorSpec] = []
    full: dict[tuple[float, float], int] = {}  # nodes, from the first, that have no more room for actors of a size
    for actor in actors:
        size = (actor.num_cpus, actor.num_gpus)
        for number in range(full.get(size, 0), len(nodes)):
            gpus = nodes[number].take(actor)
            if gpus is not None:
                places.append(PlacedActor(actor, number, gpus))
                break
            full[size] = number + 1
        else:
            unplaced.append(actor)
    return NodeAssignment(tuple(places), tuple(unplaced))


@dataclass(frozen=True)
class NodeShare:
    """Actors that must lie on one node, and what they need together."""

    total: ActorSpec
    actors: tuple[ActorSpec, ...]

    def places(self, node: int, gpus: tuple[int, ...]) -> tuple[PlacedActor, ...]:
        """Of each actor, given the GPUs of all: hosts take theirs in order, a guest has those of its hosts."""
        if len(self.actors) == 1:
            return (PlacedActor(self.actors[0], node, gpus),)
        own = iter(gpus)
        taken = {actor.name: tuple(next(own) for _ in range(round(actor.num_gpus))) for actor in self.actors}
        return tuple(
            PlacedActor(actor, node, taken[actor.name] + sum((taken[host] for host in actor.hosts), ()))
            for actor in self.actors
        )


def _assign_teams(teams: Sequence[NodeShare], nodes: Sequence[Node]) -> NodeAssignment:
    by_name = {team.total.name: team for team in teams}
    assignment = first_fit([team.total for team in teams], nodes)
    return NodeAssignment(
        tuple(part for place in assignment.places for part in by_name[place.actor.name].places(place.node, place.gpus)),
        tuple(actor for total in assignment.unplaced for actor in by_name[total.name].actors),
    )


def node_shares(placement: Placement, nodes: Sequence[Node]) -> list[NodeShare]:
    """Of learner ranks (and their guests), those that fill a node together, on as few nodes as possible; every other
    actor by itself.

    `nodes` are what a cluster has; of ranks for which it has no room, each is by itself too.

    >>> ranks = tuple(ActorSpec("learner", index, 2.0, 1.0, 2) for index in range(3))
    >>> nodes = [Node(8.0, [1.0, 1.0]), Node(8.0, [1.0, 1.0])]
    >>> [len(share.actors) for share in node_shares(Placement((), (), ranks), nodes)]
    [2, 1]
    """
    largest_first = sorted(nodes, key=lambda node: (len(node.gpus), node.cpus), reverse=True)
    teams = [_share(team) for team in placement.teams]
    of_ranks = [team for team in teams if team.total.role == "learner"]
    assignment = _assign_teams(of_ranks, [Node(node.cpus, list(node.gpus)) for node in largest_first])
    together = [_node_share(places) for places in assignment.by_node(len(nodes)) if places]
    placed = {place.actor.name for place in assignment.places}
    return together + [team for team in teams if team.total.name not in placed]


def _node_share(places: Sequence[PlacedActor]) -> NodeShare:
    """As Ray counts: of several GPUs that are shared in parts, all are whole."""
    share = _share([place.actor for place in places])
    num_touched = len({gpu for place in places for gpu in place.gpus})
    return replace(share, total=replace(share.total, num_gpus=num_touched)) if share.total.num_gpus > 1 else share


def _share(actors: Sequence[ActorSpec]) -> NodeShare:
    """What actors need together, as Ray counts: each one's need to four decimals."""
    num_cpus = round(sum(round(actor.num_cpus, 4) for actor in actors), 4)
    num_gpus = round(sum(round(actor.num_gpus, 4) for actor in actors), 4)
    return NodeShare(replace(actors[0], num_cpus=num_cpus, num_gpus=num_gpus), tuple(actors))


def ray_resources(cluster: ClusterShape) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """What `placement.check_fits` takes: resources of the whole cluster, and of its largest node."""
    node = {"CPU": float(cluster.num_cpus), "GPU": float(cluster.num_gpus)}
    return {name: amount * cluster.num_nodes for name, amount in node.items()}, node


def describe_places(places: Sequence[PlacedActor]) -> str:
    """The actors of a node in a few words.

    >>> learners = [ActorSpec("learner", index, 4.0, 1.0, 4) for index in range(3)]
    >>> describe_places([PlacedActor(actor, 0, (actor.index,)) for actor in learners])
    'learner-0 to learner-2 on GPU 0-2'
    """
    words = []
    for role in dict.fromkeys(place.actor.role for place in places):
        same = [place for place in places if place.actor.role == role]
        names = same[0].actor.name if len(same) == 1 else f"{same[0].actor.name} to {same[-1].actor.name}"
        gpus = sorted({gpu for place in same for gpu in place.gpus})
        where = f" on GPU {_ranges(gpus)}" if gpus else ""
        words.append(names + where)
    return ", ".join(words)


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 as 0-2, 5."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
