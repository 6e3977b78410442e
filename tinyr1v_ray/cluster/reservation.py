"""What a run's actors need, held together by one Ray placement group: all of it, or nothing yet."""

from __future__ import annotations

from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tinyr1v_ray.cluster.assignment import Node, node_shares
from tinyr1v_ray.cluster.placement import ActorSpec, Placement


class Reservation:
    """A placement group with a bundle for each of the placement's node shares, packed on as few nodes as possible.

    The learner ranks that find room on one node make one bundle, so they come to lie on one; Ray puts the others beside
    them. The group is asked for at once and granted when there is room; actors that are spawned meanwhile wait for it.
    A node that is lost has its bundles placed anew, and replacements of its actors go there.
    """

    def __init__(self, placement: Placement, nodes: Sequence[Node]) -> None:
        shares = [share for share in node_shares(placement, nodes) if share.total.num_cpus or share.total.num_gpus]
        self._bundles = {actor.name: index for index, share in enumerate(shares) for actor in share.actors}
        self._group = ray.util.placement_group([_bundle(share.total) for share in shares], strategy="PACK")

    def strategy(self, spec: ActorSpec) -> PlacementGroupSchedulingStrategy | str:
        """Where Ray puts an actor; one that needs nothing may go anywhere."""
        if spec.name not in self._bundles:
            return "DEFAULT"
        return PlacementGroupSchedulingStrategy(self._group, self._bundles[spec.name])

    def release(self) -> None:
        """Give everything back; actors that are still there end."""
        ray.util.remove_placement_group(self._group)


def _bundle(total: ActorSpec) -> dict[str, float]:
    """In Ray's terms, which know four decimals."""
    amounts = {"CPU": round(total.num_cpus, 4), "GPU": round(total.num_gpus, 4)}
    return {name: amount for name, amount in amounts.items() if amount}
