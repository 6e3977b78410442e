"""A prompt as the language model sees it: image placeholders expanded, multimodal positions laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyr1v_ray.errors import LearnerError
from tinyr1v_ray.types import Prompt

Grid = tuple[int, int, int]
"""Patches of an image in time, height and width."""


@dataclass(frozen=True)
class Layout:
    """What the model and the run say about tokens and rows.

    `hidden_size` sets the price of a token against that of an attention pair (see `choose_segment_size`);
    no packed row of several completions is wider than `max_length`.
    """

    image_token_id: int
    pad_token_id: int
    merge_size: int
    hidden_size: int
    max_length: int


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the language model sees it: ids [L], positions [3, L], places and feature rows of image tokens."""

    token_ids_L: np.ndarray
    position_ids_3L: np.ndarray
    image_slot_N: np.ndarray
    feature_N: np.ndarray

    @property
    def next_position(self) -> int:
        """Position of the first completion token."""
        return int(self.position_ids_3L.max()) + 1


def encode_prompt(
    prompt: Prompt, grids: Sequence[Grid], first_features: Sequence[int], layout: Layout
) -> EncodedPrompt:
    """Expand image placeholders and lay out the positions of multimodal rotary embeddings.

    Text tokens advance all three axes by one; an image of h x w merged patches occupies one time step, h rows and w
    columns, and the text goes on max(h, w) later (M-RoPE, Qwen2-VL, arXiv 2409.12191). `first_features` are the rows
    of the encoded images where each image of the prompt starts. Raises LearnerError when placeholders, images and
    token counts do not match.
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
            grid_3N = _image_positions(prompt, piece, grids[piece], layout.merge_size)
            num_tokens = grid_3N.shape[1]
            ids.append(np.full(num_tokens, layout.image_token_id, np.int64))
            positions.append(grid_3N + position)
            slots.append(np.arange(length, length + num_tokens))
            features.append(np.arange(num_tokens) + first_features[piece])
            position += max(grids[piece][1:]) // layout.merge_size
        else:
            num_tokens = len(piece)
            ids.append(np.array(piece, np.int64))
            positions.append(np.broadcast_to(np.arange(position, position + num_tokens), (3, num_tokens)))
            position += num_tokens
        length += num_tokens
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


def _image_positions(prompt: Prompt, index: int, grid: Grid, merge_size: int) -> np.ndarray:
    """int64 [3, N] relative to the image's start: 0, row and column of each merged patch."""
    num_frames, height, width = grid[0], grid[1] // merge_size, grid[2] // merge_size
    expected = prompt.images[index].num_tokens
    if num_frames * height * width != expected:
        raise LearnerError(
            f"image {index} of prompt {prompt.prompt_id} gives {num_frames * height * width} tokens in the learner and "
            f"{expected} in its reference; engine and learner must see the same pixels; use the same model.min_pixels "
            "and model.max_pixels everywhere"
        )
    return np.indices((num_frames, height, width)).reshape(3, -1)
