"""Metrics of one update, added up over micro-batches, ranks and optimizer steps."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

_TOKEN_MEANS = ("clip_fraction", "kl", "mismatch_kl", "ratio_outside_share")


class StepSums:
    """Collects sums on the device; `reduce` turns them into means over the tokens that were computed.

    Degenerate: an update without any token has means, loss and gradient norm of zero.
    """

    def __init__(self) -> None:
        self._loss = torch.zeros((), dtype=torch.float64)
        self._sums: dict[str, Tensor] = {}
        self._grad_norms: list[float] = []
        self._num_minibatches = 0
        self._num_skipped_rows = 0
        self._learning_rate = 0.0

    def add_micro_step(self, loss: Tensor, parts: dict[str, Tensor]) -> None:
        """Count a forward pass: its part of the loss, and its sums over tokens."""
        self._loss = self._loss.to(loss.device) + loss.detach().double()
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.double()

    def add_minibatch(self, learning_rate: float, grad_norm: float | None, num_skipped_rows: int) -> None:
        """Count an optimizer step; `grad_norm` None for one that computed nothing."""
        self._learning_rate = learning_rate
        self._grad_norms += [] if grad_norm is None else [grad_norm]
        self._num_minibatches += 1
        self._num_skipped_rows += num_skipped_rows

    def reduce(self, device: torch.device) -> dict[str, float]:
        """Metrics of the whole update, the same on all ranks; every rank must call it."""
        names = ("num_trained_tokens", *_TOKEN_MEANS)
        zero = torch.zeros((), dtype=torch.float64, device=device)
        totals = torch.stack([self._loss.to(device), *(self._sums.get(name, zero) for name in names)])
        if dist.get_world_size() > 1:
            dist.all_reduce(totals)
        loss, num_tokens, *means = totals.tolist()
        num_tokens_or_one = max(num_tokens, 1.0)
        return {
            "loss": loss / max(self._num_minibatches, 1),
            "grad_norm": sum(self._grad_norms) / max(len(self._grad_norms), 1),
            "learning_rate": self._learning_rate,
            "num_trained_tokens": num_tokens,
            "num_skipped_rows": float(self._num_skipped_rows),
            **{name: value / num_tokens_or_one for name, value in zip(_TOKEN_MEANS, means, strict=True)},
        }
