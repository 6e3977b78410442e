"""The actors that settings ask for, and what each needs: tested without a cluster, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tinyr1v_ray.config.engine import EvaluationEngines
from tinyr1v_ray.config.learner import LearnerSettings
from tinyr1v_ray.config.placement import PlacementSettings
from tinyr1v_ray.config.reward import RewardSettings
from tinyr1v_ray.config.rollout import RolloutSettings
from tinyr1v_ray.errors import PlacementError


@dataclass(frozen=True)
class ActorSpec:
    """One actor: what it reserves, and the threads it computes with on a CPU.

    An actor with `hosts` lies beside these others and computes on their GPUs, by turns; it reserves none itself.

    >>> ActorSpec("rollout", 0, num_cpus=1.0, num_gpus=0.0, num_threads=1).name
    'rollout-0'
    """

    role: str
    index: int
    num_cpus: float
    num_gpus: float
    num_threads: int
    hosts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in logs and error texts."""
        return f"{self.role}-{self.index}"


@dataclass(frozen=True)
class Placement:
    """Every actor of a run."""

    rollout: tuple[ActorSpec, ...]
    scorer: tuple[ActorSpec, ...]
    learner: tuple[ActorSpec, ...]

    @property
    def actors(self) -> tuple[ActorSpec, ...]:
        """All of them, learners first, since they must start together."""
        return self.learner + self.rollout + self.scorer

    @property
    def teams(self) -> tuple[tuple[ActorSpec, ...], ...]:
        """Actors that must lie on one node: hosts with the engine that is their guest; every other one by itself."""
        ranks = {rank.name: rank for rank in self.learner}
        guests = [engine for engine in self.rollout if engine.hosts]
        teams = [(*(ranks.pop(host) for host in engine.hosts), engine) for engine in guests]
        own = (*ranks.values(), *(engine for engine in self.rollout if not engine.hosts), *self.scorer)
        return (*teams, *((actor,) for actor in own))


def plan_placement(
    rollout: RolloutSettings, reward: RewardSettings, learner: LearnerSettings, placement: PlacementSettings
) -> Placement:
    """The actors of a training."""
    engines = _specs(
        "rollout", rollout.num_engines, rollout.num_cpus_per_engine, rollout.num_gpus_per_engine, rollout.num_threads
    )
    ranks = _specs(
        "learner", learner.num_ranks, learner.num_cpus_per_rank, learner.num_gpus_per_rank, learner.num_threads
    )
    if placement.colocate:
        share = len(ranks) // len(engines)
        hosts = [tuple(rank.name for rank in ranks[share * engine.index :][:share]) for engine in engines]
        engines = tuple(
            replace(engine, num_gpus=0.0, hosts=names) for engine, names in zip(engines, hosts, strict=True)
        )
    return Placement(engines, _specs("scorer", reward.num_scorers, reward.num_cpus_per_scorer, 0.0, 1), ranks)


def plan_engines(engine: EvaluationEngines) -> Placement:
    """The engines of an evaluation; there are no other actors."""
    specs = _specs("rollout", engine.num_engines, engine.num_cpus, engine.num_gpus, engine.num_threads)
    return Placement(specs, (), ())


def _specs(role: str, count: int, num_cpus: float, num_gpus: float, num_threads: int) -> tuple[ActorSpec, ...]:
    threads = num_threads or max(1, int(num_cpus))
    return tuple(ActorSpec(role, index, num_cpus, num_gpus, threads) for index in range(count))


def check_fits(placement: Placement, total: Mapping[str, float], largest_node: Mapping[str, float]) -> None:
    """Raise PlacementError, naming the setting to change, when the cluster can never hold the actors.

    `total` and `largest_node` are Ray's resources of the whole cluster and of its largest node, by name.
    """
    for resource, of in (("CPU", lambda actor: actor.num_cpus), ("GPU", lambda actor: actor.num_gpus)):
        wanted = sum(of(actor) for actor in placement.actors)
        if wanted > total.get(resource, 0.0) + 1e-6:
            raise PlacementError(
                f"the run asks for {wanted:g} {resource}s ({_breakdown(placement, of)}), the cluster has "
                f"{total.get(resource, 0.0):g}; all actors run at once; ask for fewer (num_engines, num_ranks) or for "
                "less for each (num_cpus..., num_gpus...), or add nodes"
            )
        largest = max(placement.teams, key=lambda team: sum(of(actor) for actor in team))
        needed, most = sum(of(actor) for actor in largest), largest_node.get(resource, 0.0)
        if needed > most + 1e-6:
            names = " with ".join(actor.name for actor in largest)
            raise PlacementError(
                f"{names} asks for {needed:g} {resource}s, the largest node has {most:g}; an actor, and those that "
                "share its devices, sit on one node; ask for fewer per actor"
            )


def shortage(placement: Placement, free: Mapping[str, float]) -> str:
    """What the actors must wait for because others hold it now; empty when all can start at once.

    >>> shortage(Placement((ActorSpec("rollout", 0, 2.0, 0.0, 2),), (), ()), {"CPU": 0.5})
    'waiting for 2 CPUs, 0.5 are free now'
    """
    wanted = {
        "CPU": sum(actor.num_cpus for actor in placement.actors),
        "GPU": sum(actor.num_gpus for actor in placement.actors),
    }
    short = [
        f"waiting for {amount:g} {name}s, {free.get(name, 0.0):g} are free now"
        for name, amount in wanted.items()
        if amount > free.get(name, 0.0) + 1e-6
    ]
    return "; ".join(short)


def _breakdown(placement: Placement, of: Callable[[ActorSpec], float]) -> str:
    groups = (("engines", placement.rollout), ("learner ranks", placement.learner), ("scorers", placement.scorer))
    return ", ".join(f"{sum(of(actor) for actor in actors):g} for {len(actors)} {name}" for name, actors in groups)
