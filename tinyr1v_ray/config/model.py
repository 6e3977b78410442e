"""The settings of the model, the same for engine and learner."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import PositiveInt, model_validator

from tinyr1v_ray.config.base import Settings
from tinyr1v_ray.config.folders import Folder


class ModelSettings(Settings):
    """The base model."""

    path: Folder = "miniature"
    """Folder or hub name of a model of a known family; `miniature` is the one that the package ships."""
    family: str = ""
    """Custom family as `package.module:class`; empty: one that the package knows."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of engine and learner; master weights are float32 in either case."""
    max_length: PositiveInt = 4096
    """Prompt and completion together, tokens."""
    min_pixels: PositiveInt = 3136
    """Smallest image after resizing, pixels; the same in engine and learner."""
    max_pixels: PositiveInt = 1003520
    """Largest image after resizing, pixels."""
    train_vision: bool = True
    """Whether the vision tower is trained (the paper's framework does)."""
    trust_remote_code: Literal[False] = False
    """Code from a model folder is never run."""

    @model_validator(mode="after")
    def _pixel_limits_ordered(self) -> Self:
        if self.min_pixels > self.max_pixels:
            raise ValueError(
                f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}; it may not be; swap them"
            )
        return self
