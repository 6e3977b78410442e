"""A tiny random Qwen2.5-VL folder, groups to train on, and a plain torch twin of the learner."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.types import (
    Completion,
    Finish,
    ImageRef,
    Minibatch,
    Prompt,
    TrainBatch,
    TrainGroup,
    TrainRow,
)

TEMPERATURE = 0.7


def write_model_folder(folder: Path) -> None:
    """A complete folder: 0.3M random parameters, the miniature's tokenizer, processor and template."""
    from tinyr1v_ray.miniature.processor import make_processor
    from tinyr1v_ray.miniature.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(0)
    token_id = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rope_parameters": rope,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():  # far from the symmetric start, so that errors show
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    make_processor(tokenizer).save_pretrained(folder)


def image_token_id(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text())["image_token_id"])


def make_image(folder: Path, seed: int, width_px: int, height_px: int) -> ImageRef:
    pixels = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    path = folder / f"image-{seed}-{width_px}x{height_px}.png"
    if not path.exists():  # several ranks make the same image
        partial = path.with_name(f"{path.stem}.{os.getpid()}.png")
        Image.fromarray(pixels).save(partial)
        partial.replace(path)
    content = path.read_bytes()
    num_tokens = (width_px // 28) * (height_px // 28)
    return ImageRef(str(path), hashlib.sha256(content).hexdigest(), len(content), width_px, height_px, num_tokens)


def make_group(images: Sequence[ImageRef], seed: int, num_rows: int, image_id: int, longest: int = 14) -> TrainGroup:
    """A prompt of random text with its images at different places, and completions of different lengths."""
    rng = np.random.default_rng(seed)
    ids: list[int] = rng.integers(20, 200, 3 + seed % 4).tolist()
    for _ in images:
        ids += [image_id, *rng.integers(20, 200, 2).tolist()]
    ids += rng.integers(20, 200, 2).tolist()
    rows = []
    for _ in range(num_rows):
        length = int(rng.integers(1, longest))
        tokens = rng.integers(20, 200, length).astype(np.int32)
        logprobs = (-5.5 + rng.standard_normal(length)).astype(np.float32)
        rows.append(TrainRow(Completion(tokens, logprobs, "", Finish.STOP, 0, 0), float(rng.standard_normal())))
    return TrainGroup(Prompt(f"prompt-{seed}", "ocr", "", "", tuple(ids), tuple(images)), tuple(rows))


def make_minibatch(folder: Path, seed: int, num_groups: int = 6) -> Minibatch:
    """Groups with none, one and two images; the denominators count a few rows that were left out."""
    image_id = image_token_id(folder)
    groups = []
    for index in range(num_groups):
        number = seed * 100 + index
        sizes = [(28 * (1 + (index + k) % 4), 28 * (1 + k)) for k in range(index % 3)]
        images = [make_image(folder, number * 2 + k, *size) for k, size in enumerate(sizes)]
        groups.append(make_group(images, number, 1 + (index * 2) % 5, image_id))
    num_tokens = sum(row.completion.num_tokens for group in groups for row in group.rows)
    num_rows = sum(len(group.rows) for group in groups)
    return Minibatch(tuple(groups), num_tokens + 7, num_rows + 2)


def make_batch(folder: Path, step: int, num_minibatches: int = 1) -> TrainBatch:
    return TrainBatch(step, tuple(make_minibatch(folder, step * 10 + index) for index in range(num_minibatches)))


def make_config(**sections: Mapping[str, Any]) -> TrainConfig:
    """Settings of the tests; `learner={"zero_stage": 3}` and the like change single ones."""
    tree: dict[str, dict[str, Any]] = {
        "run": {"name": "test", "num_steps": 10, "num_prompts_per_step": 12},
        "data": {"train": ["miniature:ocr"]},
        "model": {"min_pixels": 784, "max_pixels": 50176, "max_length": 256},
        "rollout": {"max_tokens": 32, "temperature": TEMPERATURE},
        "learner": {"learning_rate": 1e-4, "max_grad_norm": 0.5, "weight_decay": 0.1},
        "algorithm": {"kl_coefficient": 0.0},
    }
    for section, values in sections.items():
        tree.setdefault(section, {}).update(values)
    return TrainConfig.model_validate(tree)


class TorchTwin:
    """The same update without any of the learner's machinery: row by row, whole logits, torch's own AdamW."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        from tinyr1v_ray.data.processor import load_processor

        self.config = config
        self.num_steps = 0
        self.processor = load_processor(folder, config.model)
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.reference = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        if not config.model.train_vision:
            self.model.model.visual.requires_grad_(False)
        learner = config.learner
        self.optimizer = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=learner.learning_rate,
            betas=learner.adam_betas,
            weight_decay=learner.weight_decay,
        )

    def logprobs(self, model: torch.nn.Module, prompt: Prompt, token_ids: np.ndarray) -> torch.Tensor:
        """One row through the model class's own forward, images included."""
        from tinyr1v_ray.data.images import open_image

        ids = self.processor.expand(prompt.token_ids, prompt.images) + token_ids.tolist()
        input_ids = torch.tensor([ids])
        inputs: dict[str, Any] = {"input_ids": input_ids}
        if prompt.images:
            pixels = self.processor.pixel_inputs([open_image(image) for image in prompt.images])
            inputs |= pixels
        inputs["mm_token_type_ids"] = (input_ids == self.processor.image_token_id).int()
        logits = model(**inputs, use_cache=False).logits[0] / self.config.rollout.temperature
        num_tokens = len(token_ids)
        table = torch.log_softmax(logits[-num_tokens - 1 : -1].double(), dim=-1)
        return table.gather(1, torch.from_numpy(token_ids.astype(np.int64))[:, None])[:, 0]

    def update(self, batch: TrainBatch) -> dict[str, float]:
        """Each minibatch's loss from its definition; means over minibatches of loss and gradient norm."""
        rows = [[(g.prompt, row) for g in minibatch.groups for row in g.rows] for minibatch in batch.minibatches]
        with torch.no_grad():
            proximal = [[self.logprobs(self.model, p, row.completion.token_ids_T) for p, row in part] for part in rows]
        losses, norms = [], []
        for part, old, minibatch in zip(rows, proximal, batch.minibatches, strict=True):
            warmup = max(self.config.learner.num_warmup_steps, 1)
            for options in self.optimizer.param_groups:
                options["lr"] = self.config.learner.learning_rate * min(1.0, (self.num_steps + 1) / warmup)
            self.num_steps += 1
            losses.append(0.0)
            if part:
                losses[-1], norm = self.step(part, old, minibatch)
                norms.append(norm)
        return {"loss": float(np.mean(losses)), "grad_norm": float(np.mean(norms))}

    def step(
        self, part: list[tuple[Prompt, TrainRow]], old: list[torch.Tensor], minibatch: Minibatch
    ) -> tuple[float, float]:
        """One optimizer step; loss and gradient norm before clipping."""
        self.optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for (prompt, row), old_T in zip(part, old, strict=True):
            loss = loss + self.row_loss(prompt, row, old_T, minibatch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.learner.max_grad_norm)
        self.optimizer.step()
        return loss.item(), norm.item()

    def row_loss(self, prompt: Prompt, row: TrainRow, old_T: torch.Tensor, minibatch: Minibatch) -> torch.Tensor:
        algorithm = self.config.algorithm
        new_T = self.logprobs(self.model, prompt, row.completion.token_ids_T)
        ratio_T = torch.exp(new_T - old_T)
        clipped_T = torch.clip(ratio_T, 1 - algorithm.clip_low, 1 + algorithm.clip_high)
        gain_T = torch.minimum(ratio_T * row.advantage, clipped_T * row.advantage)
        if algorithm.importance_cap:
            rollout_T = torch.from_numpy(row.completion.logprobs_T).double()
            gain_T = gain_T * torch.exp(old_T - rollout_T).clip(max=algorithm.importance_cap)
        cost_T = -gain_T
        if algorithm.kl_coefficient:
            with torch.no_grad():
                reference_T = self.logprobs(self.reference, prompt, row.completion.token_ids_T)
            gap_T = reference_T - new_T
            cost_T = cost_T + algorithm.kl_coefficient * (torch.exp(gap_T) - 1 - gap_T)
        if algorithm.loss_average == "token":
            return cost_T.sum() / minibatch.num_loss_tokens
        if algorithm.loss_average == "sequence":
            return cost_T.mean() / minibatch.num_loss_rows
        return cost_T.sum() / (minibatch.num_loss_rows * self.config.rollout.max_tokens)

    def weights(self) -> dict[str, np.ndarray]:
        name = self.processor.family.published_name
        return {name(n): p.detach().numpy().copy() for n, p in self.model.named_parameters()}


def mixed_batches(folder: Path) -> list[TrainBatch]:
    """Three updates over prompts with none, one and two images."""
    return [make_batch(folder, step) for step in (1, 2, 3)]


def paired_batches(folder: Path) -> list[TrainBatch]:
    """Two updates of two optimizer steps each; the last minibatch has no rows."""
    first, second = make_batch(folder, 1, 2), make_batch(folder, 2, 2)
    return [first, TrainBatch(2, (second.minibatches[0], Minibatch((), 40, 4)))]


def lone_batches(folder: Path) -> list[TrainBatch]:
    """One group only, so that a second rank has nothing to do."""
    minibatch = make_minibatch(folder, 40)
    return [TrainBatch(step, (Minibatch(minibatch.groups[2:3], 60, 7),)) for step in (1, 2)]


SCENARIO_BATCHES = {"mixed": mixed_batches, "paired": paired_batches, "lone": lone_batches}
