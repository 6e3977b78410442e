"""What a weight transport is, and what it asks of the two ends that it joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np

from tinyr1v_ray.config.weights import WeightSettings
from tinyr1v_ray.learner.rank import LearnerRank, PublishedWeights
from tinyr1v_ray.rollout.engine import WeightSource, WeightUpdate
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import Prompt, RolloutGroup

P = ParamSpec("P")
T = TypeVar("T")

_GRACE_S = 10.0
"""A rank that is late says so itself, with the tensor that it waits for: its caller waits that much longer."""


class SendingLearner(Protocol):
    """The learner's ranks, each in a process of its own."""

    async def everywhere(
        self, method: Callable[Concatenate[LearnerRank, P], T], timeout_s: float, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What the first rank answers to a call that all ranks get."""

    async def first(
        self, method: Callable[Concatenate[LearnerRank, P], T], timeout_s: float, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What the first rank answers to a call that it alone gets."""

    async def free_endpoint(self) -> tuple[str, int]:
        """Address of the first rank's node, and a port that is free there."""


class ReceivingEngines(Protocol):
    """The engines, each in a process of its own."""

    @property
    def num_engines(self) -> int:
        """How many they are."""

    @property
    def num_workers_per_engine(self) -> int:
        """Processes of each, all of which receive."""

    async def connect(self, sources: Sequence[WeightSource], timeout_s: float) -> None:
        """Tell each engine, and all that will replace it, where weights will come from."""

    async def load_weights(self, version: int, update: WeightUpdate, timeout_s: float) -> None:
        """Make weights live in every engine, and in all that will replace one."""

    async def sample(self, prompt: Prompt, sampling: Sampling) -> RolloutGroup:
        """One group of one of the engines."""

    async def score(self, prompt: Prompt, token_ids_T: np.ndarray, timeout_s: float) -> dict[str, np.ndarray]:
        """Log-probs of given tokens, by engine."""

    def replace(self, engine: str, cause: Exception) -> None:
        """Start another engine in the place of one, with the same weights; raises when there were too many."""


@dataclass(frozen=True)
class Edge:
    """The way back from the learner to the engines: both ends, and what a transport must know of the run.

    `dtype` is the engines' arithmetic. `run_label` is the run's own, for what lies outside of its folder.
    """

    learner: SendingLearner
    engines: ReceivingEngines
    settings: WeightSettings
    dtype: str
    run_label: str

    async def on_all_ranks(self, action: Callable[[PublishedWeights], T]) -> T:
        """What the first rank makes of the current weights in an action in which all take part."""
        timeout_s = self.settings.timeout_s
        return await self.learner.everywhere(LearnerRank.with_weights, timeout_s + _GRACE_S, action, timeout_s)

    async def on_first_rank(self, action: Callable[[PublishedWeights], T]) -> T:
        """What the first rank makes of the current weights, alone."""
        timeout_s = self.settings.timeout_s
        return await self.learner.first(LearnerRank.with_weights, timeout_s + _GRACE_S, action, timeout_s)

    async def load_weights(self, version: int, update: WeightUpdate) -> None:
        """Make weights live in every engine."""
        await self.engines.load_weights(version, update, self.settings.timeout_s + _GRACE_S)


class WeightTransport:
    """Moves weights over an edge; does not check them. This is the driver's part: no weights pass through it."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    @staticmethod
    def check_usable(settings: WeightSettings) -> None:
        """Raise the error of whatever it needs of this machine and lacks."""

    @staticmethod
    def check_reach(settings: WeightSettings, num_nodes: int) -> None:
        """Raise PlacementError when it cannot reach engines on other nodes and there are some."""

    @staticmethod
    def memory_bytes(settings: WeightSettings, weights_bytes: float) -> float:
        """Main memory that weights on their way take, beside that of learner and engines."""
        return 0.0

    async def connect(self) -> None:
        """Once, before the first transfer."""
        raise NotImplementedError

    async def send(self, version: int) -> None:
        """Make the learner's weights live in every engine, as `version`."""
        raise NotImplementedError

    def close(self) -> None:
        """Remove whatever is left behind."""
