"""A prompt as the language model sees it: image placeholders expanded, positions laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyr1v_ray.errors import LearnerError
from tinyr1v_ray.models.family import ImageTokens
from tinyr1v_ray.types import Prompt


@dataclass(frozen=True)
class Layout:
    """What the model and the run say about tokens and rows.

    `num_position_axes` is the family's A. `hidden_size` sets the price of a token against that of an attention pair
    (see `choose_segment_size`); no packed row of several completions is wider than `max_length`.
    """

    image_token_id: int
    pad_token_id: int
    num_position_axes: int
    hidden_size: int
    max_length: int


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the language model sees it: ids [L], positions [A, L], places and feature rows of image tokens."""

    token_ids_L: np.ndarray
    position_ids_AL: np.ndarray
    image_slot_N: np.ndarray
    feature_N: np.ndarray

    @property
    def next_position(self) -> int:
        """Position of the first completion token."""
        return int(self.position_ids_AL.max()) + 1


def encode_prompt(
    prompt: Prompt, images: Sequence[ImageTokens], first_features: Sequence[int], layout: Layout
) -> EncodedPrompt:
    """Expand image placeholders and lay out positions.

    Text tokens advance all axes by one, an image as its family says. `first_features` are the rows of the encoded
    images where each image of the prompt starts. Raises LearnerError when placeholders, images and token counts do not
    match.
    """
    num_placeholders = prompt.token_ids.count(layout.image_token_id)
    if num_placeholders != len(prompt.images):
        raise LearnerError(
            f"prompt {prompt.prompt_id} has {num_placeholders} image placeholders for {len(prompt.images)} images; "
            "each image has one; prepare the data with the model's own chat template"
        )
    ids, positions, slots, features = [], [], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    length, position = 0, 0
    for piece in _pieces(prompt.token_ids, layout.image_token_id):
        if isinstance(piece, int):
            tokens = _checked(prompt, piece, images[piece])
            ids.append(tokens.token_ids_N)
            positions.append(tokens.position_ids_AN + position)
            slots.append(length + np.flatnonzero(tokens.is_feature_N))
            features.append(np.arange(tokens.num_features) + first_features[piece])
        else:
            along = np.arange(position, position + len(piece))
            ids.append(np.array(piece, np.int64))
            positions.append(np.broadcast_to(along, (layout.num_position_axes, len(piece))))
        length += len(ids[-1])
        position = int(positions[-1].max()) + 1
    return EncodedPrompt(
        np.concatenate(ids), np.concatenate(positions, axis=1), np.concatenate(slots), np.concatenate(features)
    )


def _pieces(token_ids: Sequence[int], image_token_id: int) -> list[int | Sequence[int]]:
    """Runs of text ids, and image numbers between them."""
    pieces: list[int | Sequence[int]] = []
    start, num_images = 0, 0
    for index in [i for i, token_id in enumerate(token_ids) if token_id == image_token_id]:
        if index > start:
            pieces.append(token_ids[start:index])
        pieces.append(num_images)
        start, num_images = index + 1, num_images + 1
    if start < len(token_ids):
        pieces.append(token_ids[start:])
    return pieces


def _checked(prompt: Prompt, index: int, tokens: ImageTokens) -> ImageTokens:
    """Raise LearnerError unless the image takes as many tokens as its reference says."""
    expected = prompt.images[index].num_tokens
    if len(tokens) != expected:
        raise LearnerError(
            f"image {index} of prompt {prompt.prompt_id} gives {len(tokens)} tokens in the learner and "
            f"{expected} in its reference; engine and learner must see the same pixels; use the same model.min_pixels "
            "and model.max_pixels everywhere"
        )
    return tokens
