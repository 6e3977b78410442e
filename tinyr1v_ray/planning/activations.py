"""Bytes that a forward pass keeps for the backward pass, from shapes alone.

Counted per token and layer for the modules as transformers has them. Norms keep their input in float32, the normalised
values and the output; attention keeps queries, keys and values after rotation and its output twice; the feed-forward
keeps gate, activated gate, up and product. With gradient checkpointing only each layer's input stays, and one layer is
whole at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyr1v_ray.models.shape import ModelShape


@dataclass(frozen=True)
class MicroBatchSize:
    """Tokens of the language model in one forward pass (prompts shared), image tokens, positions with logits."""

    tokens: float
    image_tokens: float
    targets: float


def layer_bytes(hidden_size: int, intermediate_size: int, bytes_per_value: int) -> int:
    """Of a token in a layer that keeps everything.

    >>> layer_bytes(128, 384, 4)  # the miniature: 2 norms x 12 x 128, attention 20 x 128, feed-forward 16 x 384
    11776
    """
    norms = 2 * hidden_size * (4 + 2 * bytes_per_value)
    attention = 5 * hidden_size * bytes_per_value
    feed_forward = 4 * intermediate_size * bytes_per_value
    return norms + attention + feed_forward


def language_bytes(shape: ModelShape, size: MicroBatchSize, bytes_per_value: int, checkpointing: bool) -> float:
    """Activations of the language model."""
    whole = layer_bytes(shape.hidden_size, shape.intermediate_size, bytes_per_value)
    kept = shape.num_layers * whole
    if checkpointing:
        kept = shape.num_layers * shape.hidden_size * bytes_per_value + whole
    return size.tokens * kept


def vision_bytes(shape: ModelShape, size: MicroBatchSize, bytes_per_value: int, checkpointing: bool) -> float:
    """Activations of the vision tower and the pixels themselves."""
    vision = shape.vision
    whole = layer_bytes(vision.hidden_size, vision.intermediate_size, bytes_per_value)
    kept = vision.depth * whole
    if checkpointing:
        kept = vision.depth * vision.hidden_size * bytes_per_value + whole
    pixels = vision.patch_values * (4 + bytes_per_value)
    return size.image_tokens * vision.patches_per_token * (kept + pixels)


def logits_bytes(shape: ModelShape, size: MicroBatchSize, chunk_tokens: int, bytes_per_value: int) -> float:
    """One chunk of logits in float32 and in the arithmetic's type, and the head's own gradient, added up in float32."""
    positions = min(chunk_tokens, size.targets)
    chunk = positions * shape.vocab_size * (4 + bytes_per_value)
    head = shape.vocab_size * shape.hidden_size * (4 + (bytes_per_value if bytes_per_value < 4 else 0))
    return chunk + head
