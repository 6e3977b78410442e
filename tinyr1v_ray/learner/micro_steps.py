"""This rank's share of a minibatch: forward passes, and what the loss needs to know about their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tinyr1v_ray.algorithms.policy_loss import SampledTokens, token_weights
from tinyr1v_ray.data.batching import plan_micro_batches
from tinyr1v_ray.learner.micro_batch import MicroBatch, build_micro_batch, idle_micro_batch
from tinyr1v_ray.learner.pixels import PixelCache
from tinyr1v_ray.learner.policy import PolicyInputs, make_inputs
from tinyr1v_ray.learner.prompt_tokens import Layout
from tinyr1v_ray.learner.rank import Objective
from tinyr1v_ray.types import Minibatch, TrainGroup


@dataclass(frozen=True)
class MicroStep:
    """One forward and backward pass; its images are decoded when it is due, since those of a whole step are large."""

    batch: MicroBatch
    tokens: SampledTokens

    def with_proximal(self, logprobs_T: Tensor) -> MicroStep:
        """The same step, with pi_prox fixed."""
        return replace(self, tokens=replace(self.tokens, proximal_logprobs_T=logprobs_T))


class MicroStepBuilder:
    """Divides minibatches among ranks and token budgets, and turns them into tensors."""

    def __init__(
        self, micro_batch_tokens: int, objective: Objective, layout: Layout, pixels: PixelCache, device: torch.device
    ) -> None:
        self._micro_batch_tokens, self._objective = micro_batch_tokens, objective
        self._layout = layout
        self._pixels = pixels
        self._device = device

    def inputs(self, step: MicroStep) -> PolicyInputs:
        """The step's tensors on the device, images decoded."""
        return make_inputs(step.batch, self._pixels).to(self._device)

    def lone_inputs(self, group: TrainGroup) -> PolicyInputs:
        """Tensors of one group outside any step."""
        batch = build_micro_batch([group], self._pixels.tokens(group.prompt.images), self._layout)
        return make_inputs(batch, self._pixels).to(self._device)

    def build(self, minibatch: Minibatch, rank: int, num_ranks: int) -> list[MicroStep]:
        """Steps of this rank; every rank gets the same number, idle ones last. No groups give no steps.

        Raises LearnerError when an image gives another number of tokens than its reference says.
        """
        plan = plan_micro_batches(minibatch.groups, num_ranks, self._micro_batch_tokens)
        return [
            self._step([minibatch.groups[index] for index in indices], minibatch) if indices else self._idle()
            for indices in plan[rank]
        ]

    def _step(self, groups: Sequence[TrainGroup], minibatch: Minibatch) -> MicroStep:
        tokens_of = self._pixels.tokens(image for group in groups for image in group.prompt.images)
        rows = [row for group in groups for row in group.rows]
        lengths_B = np.array([row.completion.num_tokens for row in rows])
        weights_B = token_weights(
            lengths_B,
            minibatch.num_loss_tokens,
            minibatch.num_loss_rows,
            self._objective.algorithm.loss_average,
            self._objective.max_tokens,
        )
        tokens = SampledTokens(
            rollout_logprobs_T=self._tensor(np.concatenate([row.completion.logprobs_T for row in rows])),
            advantages_T=self._tensor(np.repeat([row.advantage for row in rows], lengths_B)),
            weights_T=self._tensor(np.repeat(weights_B, lengths_B)),
        )
        return MicroStep(build_micro_batch(groups, tokens_of, self._layout), tokens)

    def _idle(self) -> MicroStep:
        zero_T = self._tensor(np.zeros(1))
        return MicroStep(idle_micro_batch(self._layout), SampledTokens(zero_T, zero_T, zero_T))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._device)
