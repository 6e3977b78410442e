"""The settings of a run: its folder, its length, its seed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from tinyr1v_ray.config.base import MAX_SEED, Settings
from tinyr1v_ray.config.folders import Folder


class RunSettings(Settings):
    """Where a run lives, how long it is, and its seed."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run's folder: letters, digits, dot, underscore and dash."""
    folder: Folder = "runs"
    """Folder that holds the runs; shared by all nodes."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Seed of data order, sampling and initialisation."""
    num_steps: PositiveInt = 120
    """Updates of the policy (paper's framework: 120)."""
    num_prompts_per_step: PositiveInt = 512
    """Groups trained on in one step (P)."""
    max_staleness: Annotated[int, Field(ge=0, le=64)] = 0
    """How many versions late a group may be trained; 0 is on-policy."""
