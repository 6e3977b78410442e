"""Learning rate of an optimizer step."""

from __future__ import annotations

import math

from tinyr1v_ray.config.learner import LearnerSettings


def learning_rate(step: int, num_steps: int, settings: LearnerSettings) -> float:
    """Rate of optimizer step `step` (0 is the first) of `num_steps`.

    Linear warm-up from 1/n to the full rate over n steps; then constant, or linear or half-cosine decay that reaches
    zero at `num_steps`, one step after the last.

    >>> settings = LearnerSettings(learning_rate=0.8, num_warmup_steps=2, schedule="linear")
    >>> [round(learning_rate(step, 6, settings), 3) for step in range(6)]
    [0.4, 0.8, 0.8, 0.6, 0.4, 0.2]
    """
    if step < settings.num_warmup_steps:
        return settings.learning_rate * (step + 1) / settings.num_warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    decay_steps = max(num_steps - settings.num_warmup_steps, 1)
    progress = min((step - settings.num_warmup_steps) / decay_steps, 1.0)
    if settings.schedule == "linear":
        return settings.learning_rate * (1.0 - progress)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
