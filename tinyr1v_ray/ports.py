"""The verbs: what the loop asks of the system around it. Adapters in `cluster/` put them on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tinyr1v_ray.types import LearnerUpdate, Prompt, RolloutGroup, ScoredGroup, StepAdvantages, TrainBatch


class PromptSource(Protocol):
    """An endless, seeded order of prompts that an integer can resume."""

    def iterate(self, cursor: int) -> Iterator[Prompt]:
        """Prompts from position `cursor` on (0 is the first of epoch 0); epochs follow each other without a gap."""


class RolloutEngine(Protocol):
    """Samples completions under the weights that were loaded last."""

    async def generate(self, prompt: Prompt) -> RolloutGroup:
        """The group of one prompt; raises RolloutError when no engine can answer."""


class RewardScorer(Protocol):
    """Turns answers into rewards; never hangs: what cannot be scored in time comes back marked so."""

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        """One score per completion, in order."""


class Learner(Protocol):
    """Owns the trained weights and their version."""

    async def update(self, batch: TrainBatch) -> LearnerUpdate:
        """Train on a batch; the new version is the batch's step. Raises LearnerError."""


class WeightPublisher(Protocol):
    """The one edge that goes back: from the learner to every rollout engine."""

    async def publish(self, version: int) -> None:
        """Make `version` live everywhere, verified; raises WeightSyncError with what differs."""


class Devices(Protocol):
    """What engines and learner compute on: each its own, or the same by turns."""

    async def to_learner(self) -> None:
        """Engines leave them until new weights are published; nothing is being sampled. Nothing to do where apart."""

    async def to_engines(self) -> None:
        """The learner leaves what engines need once weights are published to them. Nothing to do where apart."""


class CheckpointStore(Protocol):
    """Durable state of a run."""

    async def after_step(self, step: int, cursor: int, state: Mapping[str, float]) -> None:
        """Save if the step is due; `cursor` counts the groups consumed so far, `state` is that of the advantages.

        Raises CheckpointError.
        """


class HeldOutEvaluator(Protocol):
    """Evaluates the policy on the way."""

    async def evaluate(self, step: int) -> None:
        """Answer held-out items if the step is due; the weights of the step are live."""


class MetricSink(Protocol):
    """Where a step's metrics go."""

    def log(
        self,
        step: int,
        update: LearnerUpdate,
        groups: Sequence[ScoredGroup],
        advantages: StepAdvantages,
        num_rejected: int,
        seconds: Mapping[str, float],
    ) -> None:
        """Record a finished step, the groups it trained on, how many were turned away, and its seconds by phase."""


@dataclass(frozen=True)
class System:
    """The parts that the loop joins."""

    prompts: PromptSource
    rollouts: RolloutEngine
    rewards: RewardScorer
    learner: Learner
    weights: WeightPublisher
    checkpoints: CheckpointStore
    metrics: MetricSink
    held_out: HeldOutEvaluator
    devices: Devices


@dataclass(frozen=True)
class LoopConfig:
    """What the loop needs to know; `first_step`, `cursor` and `state` are 1, 0 and empty, or a checkpoint's.

    `advantages` makes those of a step from its groups and the state that the step before left.
    """

    num_steps: int
    num_prompts_per_step: int
    max_staleness: int
    num_minibatches: int
    keep_zero_advantages: bool
    advantages: Callable[[Sequence[ScoredGroup], Mapping[str, float]], StepAdvantages]
    accept: Callable[[ScoredGroup], bool]
    first_step: int = 1
    cursor: int = 0
    state: Mapping[str, float] = field(default_factory=dict)
