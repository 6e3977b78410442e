"""The settings of the engines of an evaluation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from tinyr1v_ray.config.base import ActorCount, Settings


class EngineSettings(Settings):
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
    """How often a dead engine is replaced before the evaluation ends (on the CPU)."""
