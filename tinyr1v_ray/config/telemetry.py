"""The settings of a run's records."""

from __future__ import annotations

from pydantic import NonNegativeInt

from tinyr1v_ray.config.base import Settings


class TelemetrySettings(Settings):
    """Where metrics go besides the run's own files."""

    tensorboard: bool = True
    """Write TensorBoard events."""
    wandb_project: str = ""
    """Weights & Biases project; empty: off."""
    num_samples_per_step: NonNegativeInt = 2
    """Groups a step whose texts and images are kept for looking at."""
    progress: bool = True
    """Show live progress."""
