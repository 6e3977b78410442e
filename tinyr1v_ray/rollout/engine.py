"""What an inference engine is: light, for those that only talk to one."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import Prompt, RolloutGroup


@dataclass(frozen=True)
class WeightSource:
    """What an engine is told once of where its weights will come from; each transport has its own fields."""

    admits_replacements: ClassVar[bool] = True
    """Whether an engine that takes a dead one's place can be told the same."""


@dataclass(frozen=True)
class WeightUpdate:
    """What an engine is told of a version that comes, or of a part of one; each transport has its own fields."""

    is_first: bool = field(default=True, kw_only=True)
    is_last: bool = field(default=True, kw_only=True)

    def message(self) -> dict[str, Any]:
        """The transport's own fields."""
        return {name: value for name, value in asdict(self).items() if name not in ("is_first", "is_last")}


class InferenceEngine(Protocol):
    """Samples completions under the weights that were loaded last.

    Every method returns at once, and may be called from any thread while others are under way. A future raises
    RolloutError when its request is at fault, and EngineDiedError, as all later ones do, when the engine is.
    """

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> Future[list[RolloutGroup]]:
        """A group for each prompt; all are admitted together. The same seeds give the same tokens."""

    def score(self, prompt: Prompt, token_ids_T: np.ndarray) -> Future[np.ndarray]:
        """Log-probs (float32 [T], natural) of given completion tokens after a prompt, under the current weights."""

    def connect(self, source: WeightSource) -> Future[None]:
        """Get ready for weights from there."""

    def load_weights(self, version: int, update: WeightUpdate) -> Future[None]:
        """Receive weights, live with the last part, between two steps; what is under way goes on under them.

        An engine that sleeps gets its memory for weights back before the first part, all of it after the last.
        """

    def sleep(self) -> Future[None]:
        """Leave the device to others until new weights come; what is asked of it meanwhile waits."""
