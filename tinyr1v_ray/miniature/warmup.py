"""Warm-up: supervised fine-tuning of the random miniature on answers in four styles.

Plain AdamW in float32; cross-entropy on the response tokens alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tinyr1v_ray.miniature.batches import IGNORED, training_batches

TOKENS_PER_ANSWER = 32
"""About the mean length of a warm-up answer: what the loss of a batch is divided by, times its answers."""


@dataclass(frozen=True)
class WarmupSettings:
    """Hyper-parameters of the warm-up; the defaults make the shipped base."""

    num_steps: int = 3000
    batch_size: int = 32
    learning_rate: float = 2e-3
    final_share: float = 0.05
    num_rising_steps: int = 100
    weight_decay: float = 0.02
    gradient_clip: float = 1.0
    cell_weight: float = 0.5
    seed: int = 0


def learning_rate_share(step: int, settings: WarmupSettings) -> float:
    """Linear rise, then a cosine down to `final_share` at the last step."""
    if step < settings.num_rising_steps:
        return (step + 1) / settings.num_rising_steps
    done = (step - settings.num_rising_steps) / max(1, settings.num_steps - settings.num_rising_steps)
    return settings.final_share + (1 - settings.final_share) * (1 + math.cos(math.pi * done)) / 2


class CellReader(torch.nn.Module):
    """Two linear heads that read the text of a 28-pixel cell (its first two tokens) off its image token.

    Used during the warm-up alone: answers teach the vision tower only after the language model has learned to look at
    the image, and the language model has nothing to look at before; reading cells directly breaks the deadlock.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, seed: int) -> None:
        super().__init__()
        self.features: torch.Tensor | None = None
        text = model.config.text_config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = torch.nn.Linear(text.hidden_size, 2 * text.vocab_size)
        self.hook = model.model.visual.register_forward_hook(self._keep)

    def _keep(self, module: torch.nn.Module, inputs: object, output: BaseModelOutputWithPooling) -> None:
        self.features = output.pooler_output

    def loss(self, cell_targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the tokens of the cells of the last forward pass; `cell_targets` is [cells, 2]."""
        logits = self.heads(self.features).unflatten(-1, (2, -1))
        return cross_entropy(logits.flatten(0, 1), cell_targets.flatten(), ignore_index=IGNORED)


def response_loss(model: Qwen2_5_VLForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the batch's response tokens, over a fixed number of tokens an answer.

    A batch holds answers of about one length. A mean over its own tokens would weigh a token of a short answer more
    than one of a long answer, and the model would then answer at once more often than its examples do.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "cell_targets")}
    hidden = model.model(**inputs).last_hidden_state[:, :-1]
    targets = batch["labels"][:, 1:]
    trained = targets != IGNORED
    total = cross_entropy(model.lm_head(hidden[trained]), targets[trained], reduction="sum")
    return total / (TOKENS_PER_ANSWER * len(targets))


def warm_up(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    settings: WarmupSettings,
    on_step: Callable[[int, float], None],
) -> None:
    """Train `model` in place; `on_step(step, loss)` is called after each step, counted from 1."""
    reader = CellReader(model, settings.seed)
    weights = [*model.parameters(), *reader.parameters()]
    matrices = [weight for weight in weights if weight.ndim > 1]
    vectors = [weight for weight in weights if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, settings))
    model.train()
    batches = training_batches(settings.num_steps, settings.batch_size, settings.seed, processor)
    for step, batch in enumerate(batches, start=1):
        loss = response_loss(model, batch)
        (loss + settings.cell_weight * reader.loss(batch["cell_targets"])).backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.gradient_clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        on_step(step, loss.item())
    reader.hook.remove()
    model.eval()
