"""A training on a named cluster, worked out: placement, places, memory, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tinyr1v_ray.cluster.assignment import NodeAssignment, assign_nodes
from tinyr1v_ray.cluster.placement import Placement, plan_placement
from tinyr1v_ray.cluster.shape import ClusterShape
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.models.shape import ModelShape
from tinyr1v_ray.planning.fits import (
    engine_problems,
    gpu_problems,
    host_problems,
    placement_problems,
    room_problems,
)
from tinyr1v_ray.planning.memory import (
    ActorMemory,
    EngineNeeds,
    checkpoint_bytes,
    driver_memory,
    engine_memory,
    engine_needs,
    export_bytes,
    learner_memory,
    scorer_memory,
)
from tinyr1v_ray.planning.workload import Workload, build_workload
from tinyr1v_ray.weight_sync.transports import TRANSPORTS


@dataclass(frozen=True)
class TrainDesign:
    """A training on a cluster, worked out: what the sections and metrics are made of."""

    config: TrainConfig
    shape: ModelShape
    cluster: ClusterShape
    work: Workload
    placement: Placement
    assignment: NodeAssignment
    needs: EngineNeeds
    memories: Mapping[str, ActorMemory]
    problems: tuple[str, ...]

    @property
    def shared_bytes(self) -> float:
        """Two versions of the weights that pass through memory; none where they go from GPU to GPU."""
        weights = self.config.weights
        return TRANSPORTS[weights.backend].memory_bytes(weights, export_bytes(self.shape))

    @property
    def disk_bytes(self) -> dict[str, float]:
        """What the run's folder grows to: checkpoints kept, one being written, the best model (two while it changes),
        and the specialist."""
        one = checkpoint_bytes(self.config, self.shape)
        export = export_bytes(self.shape) if self.config.checkpoint.export else 0.0
        best = 2 * export_bytes(self.shape) if self.config.evaluation.every_n_steps else 0.0
        return {
            "best": best,
            "one": one,
            "kept": self.config.checkpoint.keep_last * one,
            "being written": one,
            "export": export,
        }

    @property
    def total_disk_bytes(self) -> float:
        """Free space that the run needs."""
        disk = self.disk_bytes
        return disk["kept"] + disk["being written"] + disk["best"] + disk["export"]


def design_training(
    config: TrainConfig, shape: ModelShape, cluster: ClusterShape, expect: Mapping[str, float]
) -> TrainDesign:
    """Placement, places, memory and problems; pure."""
    work, placement = (
        build_workload(config, shape, expect),
        plan_placement(config.rollout, config.reward, config.learner, config.placement),
    )
    needs = engine_needs(config, shape, work)
    on_gpu = config.rollout.num_gpus_per_engine > 0 or config.learner.num_gpus_per_rank > 0
    memories = {
        "driver": driver_memory(on_gpu),
        "rollout": engine_memory(needs, shape, cluster.accelerator),
        "learner": learner_memory(config, shape, work),
        "scorer": scorer_memory(config.reward.num_scorers),
    }
    assignment = assign_nodes(placement, cluster)
    design = TrainDesign(config, shape, cluster, work, placement, assignment, needs, memories, ())
    problems = placement_problems(placement, cluster, config) or room_problems(assignment)
    problems += engine_problems(needs, shape, memories["rollout"])
    problems += gpu_problems(assignment, memories, cluster)
    problems += host_problems(assignment, memories, cluster, design.shared_bytes)
    return replace(design, problems=tuple(problems))
