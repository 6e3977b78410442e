"""What a model family is: all in which the models that can be trained differ, behind one protocol.

A family is one file. Its attributes are read before anything heavy starts, so the file imports torch and transformers
only inside its methods. Letters of shapes: R packed rows, L their width, A axes of a position, N tokens of images, H
hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from tinyr1v_ray.config.model import ModelSettings

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from tinyr1v_ray.models.packed import PackedInputs
    from tinyr1v_ray.models.shape import VisionShape

Tensors = dict[str, "Tensor"]
"""Inputs of a vision tower by name; those of several images are concatenated along the first dimension."""


@dataclass(frozen=True)
class ImageTokens:
    """What stands in the language model's input where the prompt has one placeholder for an image.

    `position_ids_AN` count from the image's start; the text goes on one after the largest. `is_feature_N` is True where
    the encoded image goes, in its order, and False for marks around it that are tokens like any other.
    """

    token_ids_N: np.ndarray
    position_ids_AN: np.ndarray
    is_feature_N: np.ndarray

    def __len__(self) -> int:
        return len(self.token_ids_N)

    @property
    def num_features(self) -> int:
        """Rows of the encoded image."""
        return int(self.is_feature_N.sum())


@runtime_checkable
class ModelFamily(Protocol):
    """One family. It has no state; `processor` is what `load_processor` returned, `model` one of `model_class()`."""

    name: str
    """As people call it."""
    architectures: tuple[str, ...]
    """Values of `architectures` in config.json that are this family's."""
    image_token: str
    """The token that stands once for an image in a prompt; empty where the family reads text alone."""
    num_position_axes: int
    """A: 3 where rotary positions have time, row and column, 1 where a position is a number."""
    published: Mapping[str, Mapping[str, Any]]
    """Hub name -> what of its config.json sets shapes, for plans without a download."""

    def model_class(self) -> Any:
        """The class of transformers, with a vocabulary head."""

    def load_processor(self, folder: Path, settings: ModelSettings) -> Any:
        """transformers' processor under the settings' pixel limits: chat template, tokenizer, image processor.

        Where the family reads text alone, its tokenizer.
        """

    def image_tokens(self, processor: Any, width_px: int, height_px: int) -> ImageTokens:
        """What an image of this size becomes, without its pixels; as the engine expands the placeholder."""

    def pixel_inputs(self, processor: Any, images: Sequence[Image.Image]) -> Tensors:
        """What the vision tower takes of at least one RGB image, in order."""

    def engine_arguments(self, settings: ModelSettings, max_images: int) -> dict[str, Any]:
        """vLLM's arguments that make its processor do the same, for at most `max_images` in a prompt."""

    def hidden_states(self, model: Any, inputs: PackedInputs) -> Tensor:
        """Forward pass up to the vocabulary head, [R, L, H].

        Every parameter takes part, with or without images: ranks communicate the same weights at the same time.
        """

    def vision_modules(self, model: Any) -> Sequence[nn.Module]:
        """What `model.train_vision` trains or not: the tower and what leads from it to the language model."""

    def vision_shape(self, config: Any) -> VisionShape:
        """The tower in numbers, by transformers' configuration."""

    def published_name(self, name: str) -> str:
        """Name in the files on the hub, which vLLM reads too, of a parameter that the class calls `name`."""
