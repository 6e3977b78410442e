"""The settings of an engine: all that it must know, and the section `engine` of an evaluation, which turns into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from tinyr1v_ray.config.base import ActorCount, Settings
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.config.weights import WeightSettings


@dataclass(frozen=True)
class EngineSettings:
    """What an engine, and whoever keeps it alive, must know; `weights` None: it keeps those of the model's folder.

    `num_gpus` 0 is an engine on the CPU, whose KV cache is `kv_cache_gib`; on GPUs it is what `gpu_memory_share`
    leaves. `answer_timeout_s` is the longest wait for a group before the engine counts as hung. `sleep_level` 0 is an
    engine that never sleeps.
    """

    model: ModelSettings
    seed: int
    num_gpus: float
    max_num_sequences: int
    kv_cache_gib: float
    gpu_memory_share: float
    start_timeout_s: float
    answer_timeout_s: float
    max_restarts: int
    weights: WeightSettings | None = None
    sleep_level: int = 0

    @property
    def num_workers(self) -> int:
        """Tensor-parallel processes of the engine."""
        return max(1, int(self.num_gpus))


class EvaluationEngines(Settings):
    """The vLLM engines."""

    num_engines: ActorCount = 1
    """Engines, each a Ray actor."""
    num_cpus: PositiveFloat = 1.0
    """CPU cores reserved for an engine."""
    num_gpus: NonNegativeFloat = 0.0
    """GPUs of an engine; above 1 it is tensor-parallel over that many."""
    num_threads: NonNegativeInt = 0
    """Threads of an engine on the CPU; 0: one per reserved core."""
    max_num_sequences: PositiveInt = 256
    """Answers written at once by an engine; as many are kept under way."""
    kv_cache_gib: PositiveFloat = 1.0
    """KV cache of an engine on the CPU, GiB."""
    gpu_memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of a GPU's memory that an engine takes."""
    start_timeout_s: PositiveFloat = 600.0
    """Longest start of an engine."""
    item_timeout_s: PositiveFloat = 600.0
    """Longest wait for an item's answers before the engine counts as hung."""
    max_restarts: NonNegativeInt = 3
    """How often a dead engine is replaced before the evaluation ends."""

    def engine_settings(self, model: ModelSettings, seed: int) -> EngineSettings:
        """What each of them must know; their weights stay what they are."""
        return EngineSettings(
            model=model,
            seed=seed,
            num_gpus=self.num_gpus,
            max_num_sequences=self.max_num_sequences,
            kv_cache_gib=self.kv_cache_gib,
            gpu_memory_share=self.gpu_memory_share,
            start_timeout_s=self.start_timeout_s,
            answer_timeout_s=self.item_timeout_s,
            max_restarts=self.max_restarts,
        )
