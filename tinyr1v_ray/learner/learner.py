"""One rank of the DeepSpeed learner. All ranks call all methods, in the same order."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from tinyr1v_ray.algorithms.policy_loss import policy_loss
from tinyr1v_ray.config.learner import LearnerSettings
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.data.processor import load_processor
from tinyr1v_ray.errors import DeadlineError, LearnerError
from tinyr1v_ray.learner.deadline import run_within
from tinyr1v_ray.learner.engine import build_engine, join_ranks
from tinyr1v_ray.learner.export import write_export
from tinyr1v_ray.learner.full_weights import FullWeights
from tinyr1v_ray.learner.micro_steps import MicroStep, MicroStepBuilder
from tinyr1v_ray.learner.pixels import PixelCache
from tinyr1v_ray.learner.policy import PolicyModel
from tinyr1v_ray.learner.prompt_tokens import Layout
from tinyr1v_ray.learner.rank import Membership, Objective, PublishedWeights
from tinyr1v_ray.learner.schedule import learning_rate
from tinyr1v_ray.learner.state import StateFacts, load_state, save_state
from tinyr1v_ray.learner.step_metrics import StepSums
from tinyr1v_ray.models.loading import load_model
from tinyr1v_ray.types import Completion, Finish, LearnerUpdate, Minibatch, Prompt, TrainBatch, TrainGroup, TrainRow

T = TypeVar("T")


class DeepSpeedLearner:
    """Owns the trained weights of one data-parallel rank.

    Masters are float32; arithmetic is as `model.dtype` says. It draws no random numbers: dropout is off and the order
    of work follows from the batch alone. So a restored learner goes on as if it had not stopped: on the CPU bit for
    bit, on GPUs up to rounding, since sums there (those of attention's and indexing's gradients) have no fixed order.
    """

    def __init__(
        self,
        settings: LearnerSettings,
        model_settings: ModelSettings,
        objective: Objective,
        model_folder: Path,
        membership: Membership,
    ) -> None:
        self._settings, self._objective, self._membership = settings, objective, membership
        self._model_folder = Path(model_folder)
        join_ranks(settings, membership)
        self._device = torch.device("cuda" if settings.num_gpus_per_rank > 0 else "cpu")
        self._dtype = torch.bfloat16 if model_settings.dtype == "bfloat16" else torch.float32
        processor = load_processor(self._model_folder, model_settings)
        family = processor.family
        model = load_model(self._model_folder, family)
        layout = Layout(
            image_token_id=processor.image_token_id,
            pad_token_id=processor.pad_token_id,
            num_position_axes=family.num_position_axes,
            hidden_size=model.config.get_text_config().hidden_size,
            max_length=model_settings.max_length,
        )
        self._builder = MicroStepBuilder(
            settings.micro_batch_tokens, objective, layout, PixelCache(processor), self._device
        )
        policy = PolicyModel(model, family, objective.temperature, settings.logprob_chunk_tokens)
        self._reference = self._frozen_copy(policy) if objective.algorithm.kl_coefficient > 0 else None
        if not model_settings.train_vision:
            for module in family.vision_modules(model):
                module.requires_grad_(False)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": True})
        self._weights = FullWeights(model, family, settings.zero_stage, self._dtype, membership.is_first)
        self._engine = build_engine(policy.train(), settings, model_settings.dtype, membership.num_ranks)
        self._weights.restore_masters()
        self._num_optimizer_steps = 0

    def _frozen_copy(self, policy: PolicyModel) -> PolicyModel:
        """The reference: a whole copy on every rank, in the arithmetic's type."""
        return copy.deepcopy(policy).to(self._device, self._dtype).requires_grad_(False).eval()

    def update(self, batch: TrainBatch) -> LearnerUpdate:
        """Train on a batch, one optimizer step a minibatch; the new version is the batch's step.

        A minibatch without rows computes nothing and moves nothing: neither weights nor Adam's moments change, while
        the learning-rate schedule goes on. All ranks see the same batch and so decide alike.
        Raises LearnerError when a loss or gradient is not finite, or image tokens do not match.
        """
        builder, ranks = self._builder, (self._membership.rank, self._membership.num_ranks)
        prepared = [builder.build(minibatch, *ranks) for minibatch in batch.minibatches]
        first = next((index for index, steps in enumerate(prepared) if steps), len(prepared))
        for index in range(first + 1, len(prepared)):  # until the first step, pi_prox is the policy itself
            prepared[index] = [self._with_proximal(step) for step in prepared[index]]
        sums = StepSums()
        for steps, minibatch in zip(prepared, batch.minibatches, strict=True):
            rate = self._set_learning_rate()
            self._num_optimizer_steps += 1
            sums.add_minibatch(rate, self._train(steps, sums) if steps else None, _num_skipped(minibatch))
        metrics = sums.reduce(self._device)
        if not all(np.isfinite(value) for value in metrics.values()):
            broken = ", ".join(f"{name} {value}" for name, value in metrics.items() if not np.isfinite(value))
            raise LearnerError(
                f"step {batch.step} gave {broken}; loss and gradient are finite in a sound run; lower "
                "learner.learning_rate and resume from the last checkpoint"
            )
        return LearnerUpdate(batch.step, metrics)

    def _with_proximal(self, step: MicroStep) -> MicroStep:
        with torch.no_grad():
            return step.with_proximal(self._engine.module(self._builder.inputs(step)))

    def _set_learning_rate(self) -> float:
        num_steps = self._objective.num_updates * self._settings.num_minibatches
        rate = learning_rate(self._num_optimizer_steps, num_steps, self._settings)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _train(self, steps: list[MicroStep], sums: StepSums) -> float:
        """Forward, backward and one optimizer step; the gradient's norm before clipping.

        DeepSpeed averages gradients over ranks; the loss is a sum over them, hence the factor.
        """
        for index, step in enumerate(steps):
            self._engine.set_gradient_accumulation_boundary(index == len(steps) - 1)
            inputs, tokens = self._builder.inputs(step), step.tokens
            if self._reference is not None:
                with torch.no_grad():
                    tokens = replace(tokens, reference_logprobs_T=self._reference(inputs))
            loss, parts = policy_loss(self._engine(inputs), tokens, self._objective.algorithm)
            self._engine.backward(loss * self._membership.num_ranks)
            sums.add_micro_step(loss, parts)
        grad_norm = self._unsharded_grad_norm() if self._settings.zero_stage == 0 else None
        self._engine.step()
        return float(self._engine.get_global_grad_norm()) if grad_norm is None else grad_norm

    def with_weights(self, action: Callable[[PublishedWeights], T], timeout_s: float) -> T:
        """What an action makes of the current weights; where it iterates over them, it must on all ranks.

        Raises DeadlineError, which says where this rank stood, when that takes longer than `timeout_s`.
        """
        self._weights.at = "before the first tensor"
        return run_within(timeout_s, lambda: action(self._weights), lambda: self._overdue(action, timeout_s))

    def _overdue(self, action: Callable[[PublishedWeights], T], timeout_s: float) -> DeadlineError:
        rank, num_ranks = self._membership.rank, self._membership.num_ranks
        return DeadlineError(
            f"learner rank {rank} of {num_ranks} was at {type(action).__name__}, {self._weights.at}, after "
            f"{timeout_s:g} s; a version is on its way that long at most; see what it waited for, or raise "
            "weights.timeout_s"
        )

    def token_logprobs(self, prompt: Prompt, token_ids_T: np.ndarray) -> np.ndarray:
        """Log-probs of these tokens under the current weights, float32 [T].

        At temperature 1, whatever the run samples at: so an engine scores tokens that it is given.
        """
        ids_T = np.asarray(token_ids_T, np.int32)
        completion = Completion(ids_T, np.zeros(len(ids_T), np.float32), "", Finish.STOP, 0, 0)
        inputs = self._builder.lone_inputs(TrainGroup(prompt, (TrainRow(completion, 0.0),)))
        with torch.no_grad():
            logprobs_T = self._engine.module(inputs, temperature=1.0)
        return logprobs_T.float().cpu().numpy()

    def free_memory(self) -> None:
        """Give torch's cached blocks of GPU memory back, which an engine on the same GPU cannot use."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def save(self, folder: Path) -> None:
        """Write this rank's state into `folder`, which all ranks see; raises CheckpointError."""
        save_state(self._engine, Path(folder), self._state_facts())

    def state_bytes(self) -> int:
        """About how much `save` writes, all ranks together: the model's copy, float32 masters and two moments."""
        copy_bytes = 2 if self._dtype == torch.bfloat16 else 4
        return sum(
            math.prod(shape) * (copy_bytes + (12 if name in self._weights.trained else 0))
            for name, shape in self._weights.shapes.items()
        )

    def restore(self, folder: Path) -> None:
        """Continue from what `save` wrote, on the same number of ranks and ZeRO stage; raises CheckpointError.

        The state is a pickle: restore only what this user wrote and whose hashes were verified.
        """
        self._num_optimizer_steps = load_state(self._engine, Path(folder), self._state_facts()).num_optimizer_steps

    def _state_facts(self) -> StateFacts:
        dtype = str(self._dtype).removeprefix("torch.")
        return StateFacts(self._membership.num_ranks, self._settings.zero_stage, dtype, self._num_optimizer_steps)

    def export(self, folder: Path) -> None:
        """Write a Hugging Face folder in float32, with the base's tokenizer, processor and template."""
        metadata = {"format": "pt"}
        if self._membership.is_first:
            write_export(Path(folder), self._model_folder, lambda path: self._weights.write(path, metadata))
        else:
            self._weights.write(Path(folder), metadata)

    def close(self) -> None:
        """Leave the process group; nothing can be called afterwards."""
        torch.distributed.destroy_process_group()

    def _unsharded_grad_norm(self) -> float | None:
        """Norm of the averaged gradients where DeepSpeed does not report it (plain data parallelism in float32)."""
        if self._dtype != torch.float32:
            return None
        gradients = [parameter.grad for parameter in self._engine.module.parameters() if parameter.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))


def _num_skipped(minibatch: Minibatch) -> int:
    """Usable rows that were left out because they have no effect."""
    return minibatch.num_loss_rows - sum(len(group.rows) for group in minibatch.groups)
