"""The settings of the rollout engines of a training."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tinyr1v_ray.config.base import ActorCount, Settings, Share
from tinyr1v_ray.config.engine import EngineSettings
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.config.placement import PlacementSettings
from tinyr1v_ray.config.weights import WeightSettings


class RolloutSettings(Settings):
    """How completions are sampled."""

    num_engines: ActorCount = 1
    """vLLM engines, each a Ray actor."""
    num_completions: PositiveInt = 5
    """Completions of a prompt (G); at least 2, since an advantage compares within the group."""
    max_tokens: PositiveInt = 2048
    """Longest completion, tokens."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling; 1 keeps all tokens, as the importance weights assume."""
    deterministic: bool = False
    """Admit the requests of a step as one batch, so that on the CPU a resumed run repeats an uninterrupted one."""
    num_cpus_per_engine: PositiveFloat = 1.0
    """CPU cores reserved for an engine."""
    num_gpus_per_engine: NonNegativeFloat = 0.0
    """GPUs of an engine; above 1 it is tensor-parallel over that many."""
    max_num_sequences: PositiveInt = 256
    """Sequences decoded at once by an engine."""
    kv_cache_gib: PositiveFloat = 1.0
    """KV cache of an engine on the CPU, GiB."""
    gpu_memory_share: Share = 0.9
    """Share of a GPU's memory that an engine takes."""
    num_threads: NonNegativeInt = 0
    """Threads of an engine on the CPU; 0: one per reserved core."""
    start_timeout_s: PositiveFloat = 600.0
    """Longest start of an engine."""
    group_timeout_s: PositiveFloat = 600.0
    """Longest wait for a group before its engine counts as hung."""
    max_restarts: NonNegativeInt = 3
    """How often a dead engine is replaced before the run ends; where it cannot be replaced alone (`nccl`, `ipc`),
    `learner.max_restarts` counts."""

    @model_validator(mode="after")
    def _groups_can_be_compared(self) -> Self:
        if self.num_completions < 2:
            raise ValueError(
                "num_completions is 1; advantages compare the completions of a group, so it must be at least 2; "
                "set rollout.num_completions=2 or more"
            )
        if self.num_gpus_per_engine > 1 and not float(self.num_gpus_per_engine).is_integer():
            raise ValueError(f"num_gpus_per_engine is {self.num_gpus_per_engine}; above 1 it must be whole; round it")
        return self

    def engine_settings(
        self, model: ModelSettings, seed: int, weights: WeightSettings, placement: PlacementSettings
    ) -> EngineSettings:
        """What each engine must know."""
        return EngineSettings(
            model=model,
            seed=seed,
            num_gpus=self.num_gpus_per_engine,
            max_num_sequences=self.max_num_sequences,
            kv_cache_gib=self.kv_cache_gib,
            gpu_memory_share=self.gpu_memory_share,
            start_timeout_s=self.start_timeout_s,
            answer_timeout_s=self.group_timeout_s,
            max_restarts=self.max_restarts,
            weights=weights,
            sleep_level=placement.sleep_level if placement.colocate else 0,
        )
