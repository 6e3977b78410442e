"""The settings of a run's checkpoints."""

from __future__ import annotations

from pydantic import PositiveInt

from tinyr1v_ray.config.base import Settings


class CheckpointSettings(Settings):
    """What is kept of a run."""

    every_n_steps: PositiveInt = 20
    """Distance of checkpoints; the last step always makes one."""
    keep_last: PositiveInt = 2
    """Checkpoints kept."""
    export: bool = True
    """Write the specialist in Hugging Face format, float32, at the end."""
