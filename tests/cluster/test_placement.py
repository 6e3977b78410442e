"""Placement is arithmetic: no cluster."""

from __future__ import annotations

import pytest

from tinyr1v_ray.cluster.assignment import Node, assign_nodes, node_shares
from tinyr1v_ray.cluster.placement import Placement, check_fits, plan_placement
from tinyr1v_ray.cluster.shape import parse_cluster
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import PlacementError


def planned(*overrides: str) -> Placement:
    config = parse_settings(TrainConfig, {}, ["run.name=a", "data.train=[a.jsonl]", *overrides])
    return plan_placement(config.rollout, config.reward, config.learner, config.placement)


def test_actors_and_their_reservations() -> None:
    placement = planned(
        "rollout.num_engines=2", "learner.num_ranks=3", "reward.num_scorers=2", "learner.num_cpus_per_rank=4"
    )
    assert [actor.name for actor in placement.rollout] == ["rollout-0", "rollout-1"]
    assert [actor.num_threads for actor in placement.learner] == [4, 4, 4]
    assert sum(actor.num_cpus for actor in placement.actors) == pytest.approx(2 * 1 + 3 * 4 + 2 * 0.1)


def test_threads_may_differ_from_the_reservation() -> None:
    [actor] = planned("rollout.num_threads=2", "rollout.num_cpus_per_engine=0.5").rollout
    assert (actor.num_cpus, actor.num_threads) == (0.5, 2)


def test_a_run_that_fits_exactly_fits() -> None:
    check_fits(planned("reward.num_cpus_per_scorer=1"), {"CPU": 3.0}, {"CPU": 3.0})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.num_engines=4"], r"asks for 5.1 CPUs .* cluster has 2; .* ask for fewer \(num_engines, num_ranks\)"),
        (
            ["rollout.num_gpus_per_engine=2", "weights.backend=nccl", "reward.num_cpus_per_scorer=0"],
            "asks for 2 GPUs .2 for 1 engines, 0 for 1 learner ranks, 0 for 1 scorers., the cluster has 0",
        ),
    ],
)
def test_too_much_for_the_cluster_is_said_with_the_numbers(overrides: list[str], message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        check_fits(planned(*overrides), {"CPU": 2.0}, {"CPU": 2.0})


def test_an_actor_must_fit_on_one_node() -> None:
    placement = planned("learner.num_cpus_per_rank=6")
    with pytest.raises(PlacementError, match="learner-0 asks for 6 CPUs, the largest node has 4"):
        check_fits(placement, {"CPU": 8.0}, {"CPU": 4.0})


def test_learner_ranks_that_find_room_on_one_node_are_asked_for_together() -> None:
    """Ten ranks of a GPU on nodes of four: 4, 4 and 2, whatever lies there now; engines by themselves."""
    placement = planned(
        *["learner.num_ranks=10", "learner.num_gpus_per_rank=1", "learner.num_cpus_per_rank=2"],
        *["rollout.num_engines=2", "rollout.num_gpus_per_engine=2", "weights.backend=nccl"],
    )
    nodes = [Node(16.0, []), *(Node(32.0, [1.0] * 4) for _ in range(4))]
    shares = node_shares(placement, nodes)
    assert [(len(share.actors), share.total.num_cpus, share.total.num_gpus) for share in shares] == [
        *[(4, 8.0, 4), (4, 8.0, 4), (2, 4.0, 2)],
        *[(1, 1.0, 2.0), (1, 1.0, 2.0)],
        (1, 0.1, 0.0),
    ]
    assert [actor for share in shares for actor in share.actors] == list(placement.actors)
    assert all(node.cpus in (16.0, 32.0) and sum(node.gpus) in (0.0, 4.0) for node in nodes), "nodes were filled"


def test_ranks_that_share_gpus_in_parts_ask_for_whole_ones() -> None:
    """Ray takes parts of a GPU up to one: three halves lie on two."""
    placement = planned("learner.num_ranks=3", "learner.num_gpus_per_rank=0.5")
    [ranks, *_] = node_shares(placement, [Node(8.0, [1.0] * 2)])
    assert ranks.total.num_gpus == 2
    placement = planned("learner.num_ranks=2", "learner.num_gpus_per_rank=0.25")
    [ranks, *_] = node_shares(placement, [Node(8.0, [1.0] * 2)])
    assert ranks.total.num_gpus == 0.5


def test_what_ranks_need_together_is_what_ray_counts_for_each() -> None:
    """Ray rounds 2/3 of a core up to 0.6667; three of them are more than two cores by that."""
    placement = planned("learner.num_ranks=3", "learner.num_cpus_per_rank=0.66667")
    [ranks, *_] = node_shares(placement, [Node(8.0, [])])
    assert ranks.total.num_cpus == 2.0001


def test_ranks_for_which_there_is_no_node_yet_are_asked_for_one_by_one() -> None:
    placement = planned("learner.num_ranks=3", "learner.num_cpus_per_rank=2")
    assert [len(share.actors) for share in node_shares(placement, [])] == [1] * 5


COLOCATED = ["placement.colocate=true", "weights.backend=ipc", "learner.num_gpus_per_rank=1"]


@pytest.mark.parametrize(("gpus", "engines"), [(1, 8), (2, 4), (8, 1)])
def test_an_engine_lies_on_the_gpus_of_its_ranks_and_reserves_none(gpus: int, engines: int) -> None:
    overrides = [f"rollout.num_gpus_per_engine={gpus}", f"rollout.num_engines={engines}", "learner.num_ranks=8"]
    placement = planned(*COLOCATED, *overrides)
    check_fits(placement, {"CPU": 20.0, "GPU": 8.0}, {"CPU": 20.0, "GPU": 8.0})
    assignment = assign_nodes(placement, parse_cluster("1x8xH100-80GB"))
    gpus_of = {place.actor.name: place.gpus for place in assignment.places}
    assert [gpus_of[f"learner-{rank}"] for rank in range(8)] == [(rank,) for rank in range(8)]
    for engine in range(engines):
        assert gpus_of[f"rollout-{engine}"] == tuple(range(engine * gpus, (engine + 1) * gpus))


def test_ranks_and_their_engines_share_a_bundle_on_each_node() -> None:
    """Eight pairs on nodes of five GPUs: five, then three; of engines over two GPUs, two, then two."""
    nodes = [Node(40.0, [1.0] * 5) for _ in range(2)]
    pairs = planned(*COLOCATED, "rollout.num_gpus_per_engine=1", "rollout.num_engines=8", "learner.num_ranks=8")
    shares = node_shares(pairs, nodes)
    assert [(len(share.actors), share.total.num_cpus, share.total.num_gpus) for share in shares] == [
        *[(10, 10.0, 5), (6, 6.0, 3), (1, 0.1, 0.0)]
    ]
    wide = planned(*COLOCATED, "rollout.num_gpus_per_engine=2", "rollout.num_engines=4", "learner.num_ranks=8")
    assert [(len(share.actors), share.total.num_gpus) for share in node_shares(wide, nodes)][:2] == [(6, 4), (6, 4)]


def test_an_engine_over_more_gpus_than_a_node_has_is_refused_with_its_ranks() -> None:
    placement = planned(*COLOCATED, "rollout.num_gpus_per_engine=4", "learner.num_ranks=4")
    with pytest.raises(
        PlacementError, match=r"learner-0 with .* with rollout-0 asks for 4 GPUs, the largest node has 2"
    ):
        check_fits(placement, {"CPU": 64.0, "GPU": 4.0}, {"CPU": 32.0, "GPU": 2.0})


def test_on_the_cpu_a_rank_and_its_engine_lie_on_one_node() -> None:
    placement = planned("placement.colocate=true", "learner.num_ranks=2", "rollout.num_engines=2")
    assignment = assign_nodes(placement, parse_cluster("2xcpu2-16GB"))
    nodes = {place.actor.name: place.node for place in assignment.places}
    assert nodes["learner-0"] == nodes["rollout-0"] != nodes["learner-1"] == nodes["rollout-1"]
