"""What a learner rank is, and what it must know of a run: light, for those that only talk to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from tinyr1v_ray.config.algorithm import AlgorithmSettings
from tinyr1v_ray.types import LearnerUpdate, Prompt, TrainBatch

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Objective:
    """What is optimised: the policy loss, on completions drawn at `temperature`, in so many updates.

    `max_tokens`, the longest completion, is the denominator of the loss average `constant`; the learning rate's decay
    ends after `num_updates`.
    """

    algorithm: AlgorithmSettings
    temperature: float
    max_tokens: int
    num_updates: int


@dataclass(frozen=True)
class Membership:
    """One rank's place in the learner's process group, and where the group meets.

    >>> Membership(0, 4, "10.0.0.1", 4000).is_first
    True
    """

    rank: int
    num_ranks: int
    master_address: str
    master_port: int

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes files and speaks for the group."""
        return self.rank == 0


class PublishedWeights(Protocol):
    """The whole float32 weights under their published names, as one rank sees them.

    Under ZeRO 3 each is gathered when it is asked for, so all ranks must iterate to the end. A gather is over before
    its tensor is handed on.
    """

    is_first: bool
    shapes: dict[str, tuple[int, ...]]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Each tensor once, in the order of `shapes`; it is valid until the next one is asked for."""

    def write(self, path: Path, metadata: Mapping[str, str]) -> None:
        """The first rank writes them as one safetensors file, whole at once; all ranks take part."""


class LearnerRank(Protocol):
    """Owns the trained weights of one data-parallel rank. All ranks get the same calls, in the same order."""

    def update(self, batch: TrainBatch) -> LearnerUpdate:
        """Train on a batch; the new version is the batch's step. Raises LearnerError."""

    def token_logprobs(self, prompt: Prompt, token_ids_T: np.ndarray) -> np.ndarray:
        """Log-probs (float32 [T]) of these tokens under the current weights, at temperature 1."""

    def with_weights(self, action: Callable[[PublishedWeights], T], timeout_s: float) -> T:
        """What an action makes of the current weights: so a weight transport sends them.

        Raises DeadlineError, with this rank, what it was doing and to which tensor, after `timeout_s`.
        """

    def free_memory(self) -> None:
        """Give back to the device what is only kept for later use."""

    def save(self, folder: Path) -> None:
        """Write this rank's state into `folder`, which all ranks see; raises CheckpointError."""

    def state_bytes(self) -> int:
        """About how much `save` writes, all ranks together."""

    def restore(self, folder: Path) -> None:
        """Continue from what `save` wrote, divided as it was; raises CheckpointError."""

    def export(self, folder: Path) -> None:
        """Write the model in Hugging Face format."""
