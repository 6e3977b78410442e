"""Placement is arithmetic: no cluster."""

from __future__ import annotations

import pytest

from tinyr1v_ray.cluster.placement import check_fits, plan_placement
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import PlacementError


def config(*overrides: str) -> TrainConfig:
    return parse_settings(TrainConfig, {}, ["run.name=a", "data.train=[a.jsonl]", *overrides])


def test_actors_and_their_reservations() -> None:
    placement = plan_placement(
        config("rollout.num_engines=2", "learner.num_ranks=3", "reward.num_scorers=2", "learner.num_cpus_per_rank=4")
    )
    assert [actor.name for actor in placement.rollout] == ["rollout-0", "rollout-1"]
    assert [actor.num_threads for actor in placement.learner] == [4, 4, 4]
    assert sum(actor.num_cpus for actor in placement.actors) == pytest.approx(2 * 1 + 3 * 4 + 2 * 0.1)


def test_threads_may_differ_from_the_reservation() -> None:
    [actor] = plan_placement(config("rollout.num_threads=2", "rollout.num_cpus_per_engine=0.5")).rollout
    assert (actor.num_cpus, actor.num_threads) == (0.5, 2)


def test_a_run_that_fits_exactly_fits() -> None:
    check_fits(plan_placement(config("reward.num_cpus_per_scorer=1")), {"CPU": 3.0}, {"CPU": 3.0})


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
        check_fits(plan_placement(config(*overrides)), {"CPU": 2.0}, {"CPU": 2.0})


def test_an_actor_must_fit_on_one_node() -> None:
    placement = plan_placement(config("learner.num_cpus_per_rank=6"))
    with pytest.raises(PlacementError, match="learner-0 asks for 6 CPUs, the largest node has 4"):
        check_fits(placement, {"CPU": 8.0}, {"CPU": 4.0})
