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
        if (self.weights.backend in BACKENDS_ON_GPUS) != (self.rollout.num_gpus_per_engine > 0):
            raise ValueError(
                f"weights.backend {self.weights.backend} with {self.rollout.num_gpus_per_engine} GPUs per engine; "
                "nccl is for engines on GPUs and cpu_file for engines on the CPU; change one of them"
            )
        return self
