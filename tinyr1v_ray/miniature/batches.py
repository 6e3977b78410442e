"""Batches for the warm-up: items drawn on the fly, rendered, tokenised, padded on the right, labelled.

Images are cut into patches here in one numpy step; a test holds it equal to the image processor, whose resize has
nothing to do on whole cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import Qwen2_5_VLProcessor

from tinyr1v_ray.miniature.tasks.catalogue import MAKERS
from tinyr1v_ray.miniature.tasks.item import Item, Style
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool, item_rng

STYLE_SHARES = {Style.BARE: 0.12, Style.NEEDED: 0.18, Style.LONG: 0.35, Style.FULL: 0.35}
"""How often the warm-up answers in each style; what the warmed-up base samples at temperature 1."""

DOMAIN_TURNS = (Domain.STRUCTURE, Domain.MATH, Domain.STRUCTURE, Domain.OCR, Domain.STRUCTURE, Domain.MATH)
"""Domains of successive examples: charts and tables are learned last, and math trains the reading of digits too."""

IGNORED = -100
FIRST_WARMUP_INDEX = 1_000_000
"""Warm-up items drawn for training are numbered from here; those of the written file from 0."""


@dataclass(frozen=True)
class Example:
    """Token ids [L] with every image pad in place, the number of prompt tokens, patches [N, 1176] and the grid.

    `cell_targets` are the first two tokens of each cell's text, `IGNORED` where there is none.
    """

    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    patches: npt.NDArray[np.float32]
    grid_thw: tuple[int, int, int]
    cell_targets: tuple[tuple[int, int], ...]


def conversation(question: str, response: str | None = None) -> list[dict[str, object]]:
    """One turn in the processor's message format: the image first, then the question; perhaps the answer."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages: list[dict[str, object]] = [{"role": "user", "content": content}]
    if response is not None:
        messages.append({"role": "assistant", "content": response})
    return messages


def cut_patches(image: Image.Image, processor: Qwen2_5_VLProcessor) -> npt.NDArray[np.float32]:
    """Normalised patches [grid_h * grid_w, 3 * 2 * 14 * 14] in the order of the Qwen2-VL image processor."""
    settings = processor.image_processor
    side, merge = settings.patch_size, settings.merge_size
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
    pixels = (pixels - np.float32(settings.image_mean)) / np.float32(settings.image_std)
    rows, columns = image.height // (side * merge), image.width // (side * merge)
    blocks = pixels.reshape(rows, merge, side, columns, merge, side, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    doubled = np.repeat(blocks[:, :, :, :, :, None], settings.temporal_patch_size, axis=5)
    return np.ascontiguousarray(doubled, dtype=np.float32).reshape(rows * columns * merge * merge, -1)


def make_example(item: Item, style: Style, processor: Qwen2_5_VLProcessor) -> Example:
    """Render with the chat template and tokenise prompt and response apart, as sampling sees them."""
    tokenizer = processor.tokenizer
    prompt = processor.apply_chat_template(conversation(item.question), add_generation_prompt=True)
    grid_thw = (1, item.image.height // 14, item.image.width // 14)
    pad = processor.image_token
    prompt = prompt.replace(pad, pad * (grid_thw[1] * grid_thw[2] // 4))
    prompt_ids = tokenizer(prompt).input_ids
    response_ids = tokenizer(item.response(style) + tokenizer.eos_token).input_ids
    return Example(
        (*prompt_ids, *response_ids),
        len(prompt_ids),
        cut_patches(item.image, processor),
        grid_thw,
        _cell_targets(item, processor),
    )


def _cell_targets(item: Item, processor: Qwen2_5_VLProcessor) -> tuple[tuple[int, int], ...]:
    """Words are looked up with the space that they have in an answer; numbers digit by digit."""
    texts = [f" {text}" if text.isalpha() else text for text in item.cells]
    padded = [[*processor.tokenizer(text).input_ids, IGNORED, IGNORED] for text in texts]
    return tuple((ids[0], ids[1]) for ids in padded)


def training_example(index: int, seed: int, processor: Qwen2_5_VLProcessor) -> Example:
    """Warm-up example number `index`: the domains take turns, item and style are drawn from the example's own seed."""
    domain = DOMAIN_TURNS[index % len(DOMAIN_TURNS)]
    rng = item_rng(seed, domain, Pool.WARMUP, FIRST_WARMUP_INDEX + index)
    item = MAKERS[domain](Pool.WARMUP, rng)
    style = list(STYLE_SHARES)[int(rng.choice(len(STYLE_SHARES), p=list(STYLE_SHARES.values())))]
    return make_example(item, style, processor)


def collate(examples: list[Example], pad_id: int, image_id: int) -> dict[str, torch.Tensor]:
    """Model inputs of a batch; labels are the response's tokens, `IGNORED` elsewhere."""
    length = max(len(example.token_ids) for example in examples)
    ids = np.full((len(examples), length), pad_id)
    mask = np.zeros_like(ids)
    labels = np.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        end = len(example.token_ids)
        ids[row, :end] = example.token_ids
        mask[row, :end] = 1
        labels[row, example.num_prompt_tokens : end] = example.token_ids[example.num_prompt_tokens :]
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "mm_token_type_ids": torch.from_numpy((ids == image_id).astype(np.int64)),
        "pixel_values": torch.from_numpy(np.concatenate([example.patches for example in examples])),
        "image_grid_thw": torch.tensor([example.grid_thw for example in examples]),
        "labels": torch.from_numpy(labels),
        "cell_targets": torch.tensor([pair for example in examples for pair in example.cell_targets]),
    }


def training_batches(
    num_steps: int, batch_size: int, seed: int, processor: Qwen2_5_VLProcessor
) -> Iterator[dict[str, torch.Tensor]]:
    """`num_steps` batches; eight at a time are drawn, sorted by length, cut and shuffled, so that little is padding."""
    tokenizer = processor.tokenizer
    order = np.random.default_rng([seed, num_steps])
    num_drawn = 0
    while num_drawn < num_steps:
        count = min(8, num_steps - num_drawn)
        numbers = range(num_drawn * batch_size, (num_drawn + count) * batch_size)
        examples = [training_example(number, seed, processor) for number in numbers]
        examples.sort(key=lambda example: len(example.token_ids))
        for part in order.permutation(count).tolist():
            chosen = examples[part * batch_size : (part + 1) * batch_size]
            yield collate(chosen, tokenizer.pad_token_id, processor.image_token_id)
        num_drawn += count
