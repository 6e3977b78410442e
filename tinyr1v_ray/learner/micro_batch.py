"""A micro-batch as arrays: prompts written once for several completions, rows packed to one width.

The completions of a group share their prompt. A *segment* holds the prompt once and k of its completions behind it;
each completion sees the prompt and itself, and its positions go on from the prompt's, so its log-probs are those of a
row of its own. Several segments are packed into a row. The last token of a completion predicts nothing and is not an
input; prompt tokens but the last predict nothing and get no logits.

Shape suffixes here: R packed rows, L their width, A axes of a position, T completion tokens of the whole micro-batch in
order, N image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyr1v_ray.learner.prompt_tokens import EncodedPrompt, Layout, encode_prompt
from tinyr1v_ray.models.family import ImageTokens
from tinyr1v_ray.types import ImageRef, TrainGroup, TrainRow

PADDING = -1


@dataclass(frozen=True)
class MicroBatch:
    """Arrays of one forward pass.

    `segment_RL` numbers the segments of a row from 0 (padding -1); `branch_RL` is 0 on prompt tokens and 1..k on
    completions. Without any need for a mask (`is_plain`: one completion a row, padded on the right) causal attention
    is enough. `source_T` are flat indices into [R * L] of the position that predicts each target. `image_slot_N` are
    flat indices of image tokens, `feature_N` which row of the encoded images belongs there.
    """

    token_ids_RL: np.ndarray
    position_ids_ARL: np.ndarray
    segment_RL: np.ndarray
    branch_RL: np.ndarray
    is_plain: bool
    source_T: np.ndarray
    targets_T: np.ndarray
    image_slot_N: np.ndarray
    feature_N: np.ndarray
    images: tuple[ImageRef, ...]


@dataclass(frozen=True)
class Segment:
    """A prompt and some of its completions; `first_target` is where its targets start in [T]."""

    prompt: EncodedPrompt
    rows: tuple[TrainRow, ...]
    first_target: int

    @property
    def num_tokens(self) -> int:
        """Input tokens: the last one of each completion is left out."""
        return len(self.prompt.token_ids_L) + sum(row.completion.num_tokens - 1 for row in self.rows)


@dataclass(frozen=True)
class PlacedSegment:
    """Segment number `order` of row `row`, from column `start` on."""

    segment: Segment
    row: int
    start: int
    order: int


def choose_segment_size(groups: Sequence[tuple[int, Sequence[int]]], layout: Layout) -> int:
    """How many completions share a copy of their prompt: 0 for rows of their own without a mask.

    `groups` are prompt lengths with the input lengths of their completions. Cost of a row of L tokens, in units of
    4 * hidden flops a layer: 6 * hidden * L for the linear layers (about 12 hidden^2 weights a layer), and L^2 for
    attention under a mask or L^2 / 2 without one. The cheapest power of two wins, among those whose rows fit
    `max_length`.
    """
    largest = max(len(lengths) for _, lengths in groups)
    widest = max(prompt + max(lengths) for prompt, lengths in groups)
    num_rows = sum(len(lengths) for _, lengths in groups)
    best_size, best_cost = 0, num_rows * (6.0 * layout.hidden_size * widest + 0.5 * widest * widest)
    size = 1
    while True:
        widths = [
            prompt + sum(lengths[start : start + size])
            for prompt, lengths in groups
            for start in range(0, len(lengths), size)
        ]
        width = max(widths)
        cost = sum(widths) * (6.0 * layout.hidden_size + width)
        if (width <= layout.max_length or size == 1) and cost < best_cost:
            best_size, best_cost = size, cost
        if size >= largest:
            return best_size
        size *= 2


def pack(lengths: Sequence[int], width: int) -> list[list[int]]:
    """First fit, longest first: rows of indices whose lengths add up to at most `width`."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        slot = next((number for number, free in enumerate(room) if free >= lengths[index]), len(rows))
        if slot == len(rows):
            rows.append([])
            room.append(width)
        rows[slot].append(index)
        room[slot] -= lengths[index]
    return rows


def build_micro_batch(groups: Sequence[TrainGroup], tokens: Mapping[str, ImageTokens], layout: Layout) -> MicroBatch:
    """Arrays of these groups (at least one); `tokens` gives what each image becomes, by its hash.

    Targets stand in the order of groups, rows and tokens. Images with the same hash are encoded once.
    """
    images, first_feature = _unique_images(groups, tokens)
    prompts = [
        encode_prompt(
            group.prompt,
            [tokens[image.sha256] for image in group.prompt.images],
            [first_feature[image.sha256] for image in group.prompt.images],
            layout,
        )
        for group in groups
    ]
    shapes = [
        (len(prompt.token_ids_L), [row.completion.num_tokens - 1 for row in group.rows])
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    size = choose_segment_size(shapes, layout)
    segments = _segments(prompts, groups, max(size, 1))
    return _fill(_place(segments, is_plain=size == 0), images, layout, is_plain=size == 0)


def _unique_images(
    groups: Sequence[TrainGroup], tokens: Mapping[str, ImageTokens]
) -> tuple[tuple[ImageRef, ...], dict[str, int]]:
    """Each image once, and the row of the encoded images where it starts, by hash."""
    images = {image.sha256: image for group in groups for image in group.prompt.images}
    first_feature, num_features = {}, 0
    for sha256 in images:
        first_feature[sha256] = num_features
        num_features += tokens[sha256].num_features
    return tuple(images.values()), first_feature


def _segments(prompts: Sequence[EncodedPrompt], groups: Sequence[TrainGroup], size: int) -> list[Segment]:
    segments, first_target = [], 0
    for prompt, group in zip(prompts, groups, strict=True):
        for start in range(0, len(group.rows), size):
            rows = group.rows[start : start + size]
            segments.append(Segment(prompt, rows, first_target))
            first_target += sum(row.completion.num_tokens for row in rows)
    return segments


def _place(segments: Sequence[Segment], is_plain: bool) -> list[PlacedSegment]:
    """Where each segment goes: a row of its own, or packed with others into rows as wide as the longest."""
    lengths = [segment.num_tokens for segment in segments]
    rows = [[index] for index in range(len(segments))] if is_plain else pack(lengths, max(lengths))
    placements = []
    for number, indices in enumerate(rows):
        start = 0
        for order, index in enumerate(indices):
            placements.append(PlacedSegment(segments[index], number, start, order))
            start += lengths[index]
    return placements


def _fill(
    placements: Sequence[PlacedSegment], images: tuple[ImageRef, ...], layout: Layout, is_plain: bool
) -> MicroBatch:
    num_rows = 1 + max(place.row for place in placements)
    width = max(place.start + place.segment.num_tokens for place in placements)
    num_targets = sum(row.completion.num_tokens for place in placements for row in place.segment.rows)
    batch = MicroBatch(
        token_ids_RL=np.full((num_rows, width), layout.pad_token_id, np.int64),
        position_ids_ARL=np.zeros((layout.num_position_axes, num_rows, width), np.int64),
        segment_RL=np.full((num_rows, width), PADDING, np.int64),
        branch_RL=np.zeros((num_rows, width), np.int64),
        is_plain=is_plain,
        source_T=np.zeros(num_targets, np.int64),
        targets_T=np.zeros(num_targets, np.int64),
        image_slot_N=np.concatenate(
            [place.segment.prompt.image_slot_N + place.row * width + place.start for place in placements]
        ),
        feature_N=np.concatenate([place.segment.prompt.feature_N for place in placements]),
        images=images,
    )
    for place in placements:
        _write_segment(batch, place)
    return batch


def _write_segment(batch: MicroBatch, place: PlacedSegment) -> None:
    """Write a segment's tokens, positions, marks and targets."""
    segment, row, start = place.segment, place.row, place.start
    prompt_end = start + len(segment.prompt.token_ids_L)
    base = row * batch.token_ids_RL.shape[1]
    batch.token_ids_RL[row, start:prompt_end] = segment.prompt.token_ids_L
    batch.position_ids_ARL[:, row, start:prompt_end] = segment.prompt.position_ids_AL
    batch.segment_RL[row, start : start + segment.num_tokens] = place.order
    column, target = prompt_end, segment.first_target
    for branch, train_row in enumerate(segment.rows, start=1):
        ids_T = train_row.completion.token_ids_T
        num_tokens = len(ids_T)
        end = column + num_tokens - 1
        batch.token_ids_RL[row, column:end] = ids_T[:-1]
        batch.position_ids_ARL[:, row, column:end] = np.arange(num_tokens - 1) + segment.prompt.next_position
        batch.branch_RL[row, column:end] = branch
        batch.targets_T[target : target + num_tokens] = ids_T
        batch.source_T[target] = base + prompt_end - 1
        batch.source_T[target + 1 : target + num_tokens] = np.arange(column, end) + base
        column, target = end, target + num_tokens


def idle_micro_batch(layout: Layout) -> MicroBatch:
    """The smallest forward pass, one token that predicts one: for ranks that have no rows while others do."""
    zeros = np.zeros((1, 1), np.int64)
    return MicroBatch(
        token_ids_RL=np.full((1, 1), layout.pad_token_id, np.int64),
        position_ids_ARL=np.zeros((layout.num_position_axes, 1, 1), np.int64),
        segment_RL=zeros,
        branch_RL=zeros,
        is_plain=True,
        source_T=zeros[0],
        targets_T=zeros[0],
        image_slot_N=np.empty(0, np.int64),
        feature_N=np.empty(0, np.int64),
        images=(),
    )
