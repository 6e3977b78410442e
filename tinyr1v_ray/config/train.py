"""A whole training, of the settings of its components. Every default is in theirs and nowhere else."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from tinyr1v_ray.config.algorithm import AlgorithmSettings
from tinyr1v_ray.config.base import Settings
from tinyr1v_ray.config.checkpoint import CheckpointSettings
from tinyr1v_ray.config.cluster import ClusterSettings
from tinyr1v_ray.config.data import DataSettings
from tinyr1v_ray.config.held_out import EvaluationSettings
from tinyr1v_ray.config.learner import LearnerSettings
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.config.placement import PlacementSettings
from tinyr1v_ray.config.reward import RewardSettings
from tinyr1v_ray.config.rollout import RolloutSettings
from tinyr1v_ray.config.run import RunSettings
from tinyr1v_ray.config.telemetry import TelemetrySettings
from tinyr1v_ray.config.weights import BACKENDS_ON_GPUS, WeightSettings


class TrainConfig(Settings):
    """One LIPO training run of one specialist."""

    run: RunSettings
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward: RewardSettings = RewardSettings()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    learner: LearnerSettings = LearnerSettings()
    weights: WeightSettings = WeightSettings()
    placement: PlacementSettings = PlacementSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if not self.data.train:
            raise ValueError("data.train is empty; a run needs at least one source; name a file or miniature:ocr")
        if self.evaluation.every_n_steps and not self.data.evaluation:
            raise ValueError(
                f"evaluation.every_n_steps is {self.evaluation.every_n_steps} and data.evaluation is empty; an "
                "evaluation on the way needs held-out items; name a source in data.evaluation"
            )
        if self.rollout.max_tokens >= self.model.max_length:
            raise ValueError(
                f"rollout.max_tokens {self.rollout.max_tokens} leaves no room for a prompt in model.max_length "
                f"{self.model.max_length}; it must be smaller; lower it"
            )
        if self.run.num_prompts_per_step % self.learner.num_minibatches:
            raise ValueError(
                f"run.num_prompts_per_step {self.run.num_prompts_per_step} is not a multiple of "
                f"learner.num_minibatches {self.learner.num_minibatches}; each minibatch gets the same number of "
                "groups; change one of them"
            )
        if self.rollout.deterministic and self.run.max_staleness:
            raise ValueError(
                f"rollout.deterministic with run.max_staleness {self.run.max_staleness}; a repeatable run is "
                "on-policy; set run.max_staleness=0"
            )
        if self.rollout.deterministic and self.algorithm.name == "dapo" and self.algorithm.dapo.dynamic_sampling:
            raise ValueError(
                "rollout.deterministic with DAPO's dynamic sampling; a repeatable run admits whole steps; "
                "set algorithm.dapo.dynamic_sampling=false"
            )
        return self

    @model_validator(mode="after")
    def _weights_find_their_way(self) -> Self:
        backend, gpus = self.weights.backend, self.rollout.num_gpus_per_engine
        if (backend in BACKENDS_ON_GPUS) != (gpus > 0):
            raise ValueError(
                f"weights.backend {backend} with {gpus} GPUs per engine; nccl and ipc are for engines on GPUs and "
                "cpu_file for engines on the CPU; change one of them"
            )
        if backend == "nccl" and self.placement.colocate:
            raise ValueError(
                "weights.backend nccl with placement.colocate; NCCL refuses two processes on one GPU; set "
                "weights.backend=ipc"
            )
        if backend == "nccl" and (gpus < 1 or 0 < self.learner.num_gpus_per_rank < 1):
            raise ValueError(
                f"weights.backend nccl with {gpus:g} GPUs per engine and {self.learner.num_gpus_per_rank:g} per rank; "
                "NCCL refuses two processes on one GPU, and parts of one are shared; give each whole ones, or set "
                "placement.colocate=true and weights.backend=ipc"
            )
        if backend == "ipc" and not self.placement.colocate:
            raise ValueError(
                "weights.backend ipc without placement.colocate; it hands weights over within a GPU that engine and "
                "rank share; set placement.colocate=true, or weights.backend=nccl"
            )
        return self

    @model_validator(mode="after")
    def _turns_can_be_taken(self) -> Self:
        """What `placement.colocate` asks of the other sections."""
        if not self.placement.colocate:
            return self
        gpus, ranks, engines = self.rollout.num_gpus_per_engine, self.learner.num_ranks, self.rollout.num_engines
        workers = max(1, int(gpus))
        if self.run.max_staleness:
            raise ValueError(
                f"placement.colocate with run.max_staleness {self.run.max_staleness}; engines sleep while the learner "
                "works, so nothing runs ahead of it; set run.max_staleness=0, or placement.colocate=false to overlap"
            )
        if self.learner.num_gpus_per_rank != min(gpus, 1) or not float(gpus).is_integer():
            raise ValueError(
                f"placement.colocate with {gpus:g} GPUs per engine and {self.learner.num_gpus_per_rank:g} per learner "
                "rank; they share whole GPUs, one per rank, or none; set learner.num_gpus_per_rank=1 and "
                "rollout.num_gpus_per_engine=1, or 0 for both"
            )
        if ranks % workers:
            divisors = ", ".join(str(number) for number in range(1, ranks + 1) if ranks % number == 0)
            raise ValueError(
                f"placement.colocate with engines over {workers} GPUs and {ranks} learner ranks; an engine lies on the "
                f"GPUs of whole ranks; set rollout.num_gpus_per_engine to one of {divisors}"
            )
        if engines * workers != ranks:
            raise ValueError(
                f"placement.colocate with {engines} engines of {workers} and {ranks} learner ranks; each rank shares "
                f"its device with one engine or worker of one; set rollout.num_engines={ranks // workers}"
            )
        if self.placement.sleep_level == 2 and not gpus:
            raise ValueError(
                "placement.sleep_level 2 with engines on the CPU; vLLM has no sleep mode there, so its engines keep "
                "their weights; set placement.sleep_level=1"
            )
        return self
