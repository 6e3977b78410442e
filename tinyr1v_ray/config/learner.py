"""The settings of the learner."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from tinyr1v_ray.config.base import ActorCount, Settings

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class LearnerSettings(Settings):
    """The DeepSpeed learner."""

    num_ranks: ActorCount = 1
    """Data-parallel ranks, each a Ray actor."""
    zero_stage: Literal[0, 2, 3] = 2
    """DeepSpeed ZeRO stage."""
    num_minibatches: PositiveInt = 1
    """Optimizer steps an update; the groups of a step are divided among them in order."""
    micro_batch_tokens: PositiveInt = 16384
    """Token budget of a forward pass on a rank; a group is never split, so it may exceed the budget alone."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    logprob_chunk_tokens: PositiveInt = 1024
    """Positions whose logits [chunk, V] are held in float32 at once."""
    learning_rate: PositiveFloat = 1e-6
    """AdamW learning rate."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW weight decay."""
    adam_betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW betas, at least 0 and below 1."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or down to zero at `run.num_steps`."""
    num_warmup_steps: NonNegativeInt = 0
    """Optimizer steps of linear warm-up."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradient clip."""
    num_cpus_per_rank: PositiveFloat = 1.0
    """CPU cores reserved for a rank."""
    num_gpus_per_rank: NonNegativeFloat = 0.0
    """GPUs of a rank."""
    num_threads: NonNegativeInt = 0
    """Threads of a rank on the CPU; 0: one per reserved core."""
    start_timeout_s: PositiveFloat = 900.0
    """Longest start of the learner group."""
    update_timeout_s: PositiveFloat = 3600.0
    """Longest update."""
    max_restarts: NonNegativeInt = 3
    """How often a run starts again from its last checkpoint, after the death of a learner rank or of an engine that
    cannot be replaced alone."""
