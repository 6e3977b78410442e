"""The settings of the held-out items of a training."""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from tinyr1v_ray.config.base import Settings


class EvaluationSettings(Settings):
    """Held-out items: the summary before and after training, and evaluations on the way."""

    num_items: NonNegativeInt = 1000
    """Held-out items of the summary; 0 leaves it out."""
    every_n_steps: NonNegativeInt = 0
    """Evaluate a slice after every so many steps and keep the best model; 0: never."""
    num_slice_items: PositiveInt = 100
    """Held-out items of the slice, the first of those of the summary."""
    temperature: NonNegativeFloat = 1.0
    """Sampling temperature; 0 is greedy."""
