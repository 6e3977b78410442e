"""Packing: every target is predicted from the right place, sees what it should, and stands at the right position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import learner_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyr1v_ray.learner import micro_batch as micro_batches
from tinyr1v_ray.learner.micro_batch import MicroBatch, build_micro_batch, choose_segment_size, pack
from tinyr1v_ray.learner.pixels import PixelCache
from tinyr1v_ray.learner.policy import make_inputs
from tinyr1v_ray.learner.prompt_tokens import Layout
from tinyr1v_ray.models.family import ImageTokens
from tinyr1v_ray.models.loading import load_model
from tinyr1v_ray.types import Completion, Finish, ImageRef, Prompt, TrainGroup, TrainRow

IMAGE = 7
LAYOUT = Layout(image_token_id=IMAGE, pad_token_id=0, num_position_axes=3, hidden_size=64, max_length=128)
NO_PIXELS: Any = None  # for batches without images


def image_of(number: int) -> ImageRef:
    """1 to 3 columns, 1 or 2 rows of merged patches."""
    width, height = 1 + number % 3, 1 + number % 2
    return ImageRef("", f"hash-{number}", 1, width * 28, height * 28, width * height)


@st.composite
def group_lists(draw: st.DrawFn) -> list[TrainGroup]:
    groups = []
    for number in range(draw(st.integers(1, 4))):
        images = [image_of(draw(st.integers(0, 5))) for _ in range(draw(st.integers(0, 2)))]
        ids = [IMAGE] * len(images) + draw(st.lists(st.integers(10, 99), min_size=1, max_size=5))
        ids = draw(st.permutations(ids[:-1])) + ids[-1:]
        rows = []
        for _ in range(draw(st.integers(1, 5))):
            tokens = np.array(draw(st.lists(st.integers(10, 99), min_size=1, max_size=6)), np.int32)
            rows.append(TrainRow(Completion(tokens, np.zeros(len(tokens), np.float32), "", Finish.STOP, 0, 0), 1.0))
        groups.append(TrainGroup(Prompt(f"p{number}", "", "", "", tuple(ids), tuple(images)), tuple(rows)))
    return groups


def tokens_of(groups: list[TrainGroup]) -> dict[str, ImageTokens]:
    """Rows and columns of merged patches, written out."""
    tokens = {}
    for image in (image for group in groups for image in group.prompt.images):
        cells = [(0, row, column) for row in range(image.height_px // 28) for column in range(image.width_px // 28)]
        ids = np.full(len(cells), IMAGE, np.int64)
        tokens[image.sha256] = ImageTokens(ids, np.array(cells).T, np.ones(len(cells), bool))
    return tokens


def visible(batch: MicroBatch, flat: int) -> list[int]:
    """Flat indices that position `flat` sees, by the mask that the model gets."""
    width = batch.token_ids_RL.shape[1]
    row, column = divmod(flat, width)
    mask = make_inputs(batch, NO_PIXELS).attention_mask()
    seen = np.arange(width) <= column if mask is None else mask[row, 0, column].numpy()
    return [row * width + int(j) for j in np.flatnonzero(seen)]


@settings(max_examples=60)
@given(group_lists(), st.sampled_from([0, 1, 2, 8]))
def test_each_target_sees_its_prompt_and_its_own_completion(groups: list[TrainGroup], size: int) -> None:
    """By brute force: what the predicting position sees, in order, is the row written out by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(micro_batches, "choose_segment_size", lambda *_: size)
        built = build_micro_batch(groups, tokens_of(groups), LAYOUT)
    batch = MicroBatch(**{**vars(built), "images": ()})
    flat_ids, flat_positions = batch.token_ids_RL.reshape(-1), batch.position_ids_ARL.reshape(3, -1)
    feature_of = dict(zip(batch.image_slot_N.tolist(), batch.feature_N.tolist(), strict=True))
    first_feature, total = {}, 0
    for image in built.images:
        first_feature[image.sha256], total = total, total + image.num_tokens
    target = 0
    for group in groups:
        prompt, features = [], []
        images = iter(group.prompt.images)
        for token in group.prompt.token_ids:
            count = 1
            if token == IMAGE:
                image = next(images)
                count = image.num_tokens
                features += [first_feature[image.sha256] + k for k in range(count)]
            prompt += [token] * count
        for row in group.rows:
            ids = row.completion.token_ids_T.tolist()
            for index, token in enumerate(ids):
                source = int(batch.source_T[target])
                seen = visible(batch, source)
                assert batch.targets_T[target] == token
                assert flat_ids[seen].tolist() == prompt + ids[:index]
                assert [feature_of[slot] for slot in seen if slot in feature_of] == features
                text = flat_positions[:, seen[len(prompt) :]]
                start = flat_positions[:, seen[: len(prompt)]].max() + 1
                assert (text == start + np.arange(index)).all()
                target += 1
    assert target == len(batch.targets_T)


def test_positions_are_those_of_the_model_class(model_folder: Path) -> None:
    """Multimodal rotary positions of prompts and completions against transformers' `get_rope_index`."""
    processor = cases.TorchTwin(model_folder, cases.make_config()).processor
    model = load_model(model_folder, processor.family)
    pixels = PixelCache(processor)
    layout = Layout(cases.image_token_id(model_folder), 0, 3, 64, 256)
    for group in cases.make_minibatch(model_folder, 8).groups:
        for row in group.rows:
            batch = build_micro_batch([TrainGroup(group.prompt, (row,))], pixels.tokens(group.prompt.images), layout)
            ids = torch.from_numpy(batch.token_ids_RL)
            grid = pixels.inputs(group.prompt.images)["image_grid_thw"] if group.prompt.images else None
            kinds = (ids == layout.image_token_id).int()
            expected, _ = model.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grid)
            assert torch.equal(torch.from_numpy(batch.position_ids_ARL), expected)


def test_the_cheapest_segment_size_is_chosen() -> None:
    """Long prompts are shared by all completions, long completions by none, and rows stay within the length limit."""
    layout = Layout(IMAGE, 0, 3, hidden_size=64, max_length=4000)
    assert choose_segment_size([(1000, [20] * 8)], layout) == 8
    assert choose_segment_size([(4, [900] * 8)], layout) == 0
    assert choose_segment_size([(1000, [20] * 8)], Layout(IMAGE, 0, 3, 64, max_length=1045)) == 2
    assert choose_segment_size([(10, [5])], layout) == 0


def test_segment_size_by_the_cost_written_out() -> None:
    """Against the formula evaluated by hand: prompts of 30 with 4 completions of 20 and hidden 8.

    alone: 4 rows of 50: 4 * (48 * 50 + 1250) = 14600. One: 4 * 50 * (48 + 50) = 19600.
    Two: 2 * 70 * (48 + 70) = 16520. Four: 110 * (48 + 110) = 17380. So alone; with hidden 64: 4 is cheapest.
    """
    shapes = [(30, [20, 20, 20, 20])]
    assert choose_segment_size(shapes, Layout(IMAGE, 0, 3, hidden_size=8, max_length=500)) == 0
    assert choose_segment_size(shapes, Layout(IMAGE, 0, 3, hidden_size=64, max_length=500)) == 4


@settings(max_examples=100)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_packing_holds_everything_once_and_wastes_little(lengths: list[int]) -> None:
    """First fit leaves at most one row half empty or more, since the next one's items would have gone there."""
    width = max(lengths)
    rows = pack(lengths, width)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= width for row in rows)
    assert sum(2 * sum(lengths[index] for index in row) <= width for row in rows) <= 1
