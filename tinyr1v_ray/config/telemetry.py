"""The settings of a run's records."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt

from tinyr1v_ray.config.base import Settings

Port = Annotated[int, Field(ge=0, le=65535)]


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
    page_port: Port = 0
    """Port of 127.0.0.1 on which the driver serves a page that shows the run; 0: none."""
