"""Where Ray puts the actors of a run, on a real cluster of several nodes on this machine: as planned, or not yet."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray
from ray.cluster_utils import Cluster

from tinyr1v_ray.cluster.connection import nodes
from tinyr1v_ray.cluster.handle import Handle, spawn
from tinyr1v_ray.cluster.placement import ActorSpec, Placement
from tinyr1v_ray.cluster.reservation import Reservation
from tinyr1v_ray.errors import DeadlineError

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

TIMEOUT_S = 60.0


class Resident:
    """A role that knows where it lives."""

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def gpus(self) -> list[str]:
        return os.environ["CUDA_VISIBLE_DEVICES"].split(",")


def specs(role: str, count: int, num_cpus: float) -> tuple[ActorSpec, ...]:
    return tuple(ActorSpec(role, index, num_cpus, 0.0, 1) for index in range(count))


def start(spec: ActorSpec, reservation: Reservation) -> Handle[Resident]:
    return spawn(spec, Resident, reservation)


@contextmanager
def spawned(placement: Placement) -> Iterator[list[Handle[Resident]]]:
    """The placement's actors, learner ranks first."""
    reservation = Reservation(placement, nodes())
    residents = [start(spec, reservation) for spec in placement.actors]
    try:
        yield residents
    finally:
        reservation.release()


async def nodes_of(residents: list[Handle[Resident]]) -> list[str]:
    return list(await asyncio.gather(*(resident.call(Resident.node, TIMEOUT_S) for resident in residents)))


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """Two nodes of four cores and two GPUs, as far as Ray knows."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2})
    cluster.add_node(num_cpus=4, num_gpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        cluster.wait_for_nodes()
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_ranks_share_a_node_where_they_fit_and_engines_fill_what_is_left(two_nodes: None) -> None:
    """Three ranks and three engines of a core: left alone, Ray spreads them once a node is half full."""
    with spawned(Placement(specs("rollout", 3, 1.0), specs("scorer", 1, 0.0), specs("learner", 3, 1.0))) as residents:
        ranks, engines = residents[:3], residents[3:6]
        [rank_node] = set(asyncio.run(nodes_of(ranks)))
        engine_nodes = asyncio.run(nodes_of(engines))
        assert engine_nodes.count(rank_node) == 1, "one core is left beside the ranks"
        assert len(set(engine_nodes)) == 2
        assert len(asyncio.run(nodes_of(residents[6:]))) == 1, "a scorer that needs nothing runs too"


def test_ranks_that_need_two_nodes_fill_one_of_them(two_nodes: None) -> None:
    with spawned(Placement((), (), specs("learner", 6, 1.0))) as ranks:
        seen = asyncio.run(nodes_of(ranks))
    assert sorted(seen.count(node) for node in set(seen)) == [2, 4]


def test_a_replacement_comes_to_the_place_of_the_one_that_died(two_nodes: None) -> None:
    placement = Placement(specs("rollout", 1, 1.0), (), specs("learner", 3, 1.0))
    reservation = Reservation(placement, nodes())
    try:
        [before] = asyncio.run(nodes_of([first := start(placement.rollout[0], reservation)]))
        first.kill()
        assert asyncio.run(nodes_of([start(placement.rollout[0], reservation)])) == [before]
    finally:
        reservation.release()


def test_what_finds_no_room_waits_whole_and_goes_on_when_there_is_room(two_nodes: None) -> None:
    """The second run holds nothing while the first has six of eight cores: not even the two that are left."""
    with spawned(Placement((), (), specs("learner", 6, 1.0))) as first:
        asyncio.run(nodes_of(first))
        placement = Placement(specs("rollout", 1, 1.0), (), specs("learner", 3, 1.0))
        reservation = Reservation(placement, nodes())
        engine = start(placement.rollout[0], reservation)
        with pytest.raises(DeadlineError, match=r"^rollout-0\.start did not answer within 3 s"):
            asyncio.run(engine.started(3.0))
        assert ray.available_resources()["CPU"] == 2.0
    try:
        asyncio.run(engine.started(TIMEOUT_S))
    finally:
        reservation.release()


@pytest.mark.parametrize("width", [1, 2])
def test_an_engine_sees_the_gpus_of_its_ranks_and_so_does_its_replacement(two_nodes: None, width: int) -> None:
    """Four ranks with a GPU each and engines over one or two of them: two on each node, whichever Ray gave them."""
    ranks = tuple(ActorSpec("learner", index, 0.5, 1.0, 1) for index in range(4))
    hosts = [tuple(rank.name for rank in ranks[first : first + width]) for first in range(0, 4, width)]
    engines = tuple(ActorSpec("rollout", index, 0.5, 0.0, 1, hosts=names) for index, names in enumerate(hosts))
    reservation = Reservation(Placement(engines, (), ranks), nodes())
    try:
        by_name = {rank.name: start(rank, reservation) for rank in ranks}

        def guest(spec: ActorSpec) -> Handle[Resident]:
            return spawn(spec, Resident, reservation, hosts=[by_name[name] for name in spec.hosts])

        async def seen(residents: list[Handle[Resident]]) -> list[tuple[str, list[str]]]:
            gpus = await asyncio.gather(*(resident.call(Resident.gpus, TIMEOUT_S) for resident in residents))
            return list(zip(await nodes_of(residents), gpus, strict=True))

        of_ranks = dict(zip(by_name, asyncio.run(seen(list(by_name.values()))), strict=True))
        assert len({(node, *gpus) for node, gpus in of_ranks.values()}) == 4
        expected = [(of_ranks[names[0]][0], [gpu for name in names for gpu in of_ranks[name][1]]) for names in hosts]
        guests = [guest(engine) for engine in engines]
        assert asyncio.run(seen(guests)) == expected
        guests[0].kill()
        assert asyncio.run(seen([guest(engines[0])])) == expected[:1]
    finally:
        reservation.release()
