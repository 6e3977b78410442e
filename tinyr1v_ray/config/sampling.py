"""The settings of an evaluation's draws."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from tinyr1v_ray.config.base import MAX_SEED, Settings


class SamplingSettings(Settings):
    """How answers are drawn."""

    num_samples: PositiveInt = 1
    """Answers to each item (K); above 1 the accuracy is avg@K."""
    temperature: NonNegativeFloat = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling; 1 keeps all tokens."""
    max_tokens: PositiveInt = 2048
    """Longest answer, tokens."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Seed of the draws."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.num_samples > 1 and self.temperature == 0.0:
            raise ValueError(
                f"num_samples is {self.num_samples} at temperature 0; greedy answers are all the same; set "
                "sampling.temperature (--temperature) above 0"
            )
        return self
