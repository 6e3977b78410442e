"""What flows between the stages, frozen.

Prompt -> RolloutGroup -> ScoredGroup -> StepAdvantages -> TrainBatch -> LearnerUpdate -> StepMetrics.

Shape suffixes: P prompts, G completions of a prompt, T completion tokens, L prompt + completion, B rows.
Between processes numpy arrays travel, never torch tensors, and images travel as references.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True)
class ImageRef:
    """An image file that every process can open by itself, and what it must contain.

    `num_tokens` is how many placeholder tokens the language model sees for it under the run's pixel limits;
    engine and learner must both arrive at this number.

    >>> ImageRef("/data/images/9f.png", "9f86d0", 812, 84, 28, 3).num_tokens
    3
    """

    path: str
    sha256: str
    num_bytes: int
    width_px: int
    height_px: int
    num_tokens: int


@dataclass(frozen=True)
class Prompt:
    """One item of a data set, ready to be sampled from.

    `prompt_id` is stable over epochs and resumed runs. `token_ids` hold ONE image placeholder per image (the engine
    and the learner expand it to `num_tokens` each). `epoch` counts how often the data set was gone through before,
    `position` how many prompts were issued for training before this one, over all epochs (-1: it is not trained on).
    `other_answers` are right, too.

    >>> image = ImageRef("/data/images/9f.png", "9f86d0", 812, 84, 28, 3)
    >>> prompt = Prompt("ocr-7", "ocr", "Read the number.", "407", (5, 9, 6, 1), (image,), difficulty="3")
    >>> prompt.num_expanded_tokens  # 4 ids, one of which stands for 3 image tokens
    6
    """

    prompt_id: str
    domain: str
    question: str
    answer: str
    token_ids: tuple[int, ...]
    images: tuple[ImageRef, ...] = ()
    difficulty: str = ""
    epoch: int = 0
    other_answers: tuple[str, ...] = ()
    position: int = -1

    @property
    def num_expanded_tokens(self) -> int:
        """Length of the prompt as the language model sees it."""
        return len(self.token_ids) + sum(image.num_tokens - 1 for image in self.images)


class Finish(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    `token_ids_T` (int32) are the sampled ids, the end token included when it was sampled; they are never
    re-tokenised. `logprobs_T` (float32, natural logarithm) are those of the distribution that was sampled from.
    `first_version` and `last_version` are the weight versions under which its first and last token were sampled.

    >>> ids, logprobs = np.array([12, 7, 2], np.int32), np.array([-0.1, -0.7, 0.0], np.float32)
    >>> Completion(ids, logprobs, "<answer>4</answer>", Finish.STOP, 3, 3).num_tokens
    3
    """

    token_ids_T: np.ndarray
    logprobs_T: np.ndarray
    text: str
    finish: Finish
    first_version: int
    last_version: int

    @property
    def num_tokens(self) -> int:
        """Completion length T in tokens."""
        return int(self.token_ids_T.shape[0])


@dataclass(frozen=True)
class RolloutGroup:
    """The G completions of one prompt, in the order of their seeds."""

    prompt: Prompt
    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class Score:
    """Reward of one completion: `total` in [0, 1] is what is trained on, `parts` are its raw, unweighted terms.

    `correct` is the domain's own verdict (accuracy counts it); an item that could not be scored has `failure` set,
    `total` 0 and takes no part in training.

    >>> Score(0.95, {"answer": 0.944, "format": 1.0}, correct=False).is_scored
    True
    """

    total: float
    parts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    correct: bool = False
    failure: str = ""

    @property
    def is_scored(self) -> bool:
        """Whether a scorer returned a value in time."""
        return not self.failure

    def __reduce__(self) -> tuple[object, ...]:
        return Score, (self.total, dict(self.parts), self.correct, self.failure)


@dataclass(frozen=True)
class ScoredGroup:
    """A rollout group with one score per completion.

    >>> prompt = Prompt("math-1", "math", "1+1?", "2", (5,))
    >>> answer = Completion(np.array([7], np.int32), np.zeros(1, np.float32), "2", Finish.STOP, 0, 0)
    >>> group = ScoredGroup(RolloutGroup(prompt, (answer, answer)), (Score(1.0), Score(0.0)))
    >>> group.rewards_G.tolist(), group.lengths_G.tolist()
    ([1.0, 0.0], [1, 1])
    """

    group: RolloutGroup
    scores: tuple[Score, ...]

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.group.completions):
            raise ValueError(f"{len(self.scores)} scores for {len(self.group.completions)} completions")

    @property
    def usable_G(self) -> np.ndarray:
        """bool [G]: completions that were finished and scored, and so may be trained on."""
        pairs = zip(self.group.completions, self.scores, strict=True)
        return np.array([c.finish != Finish.ABORT and c.num_tokens > 0 and s.is_scored for c, s in pairs], bool)

    @property
    def rewards_G(self) -> np.ndarray:
        """float64 [G]."""
        return np.array([score.total for score in self.scores], np.float64)

    @property
    def lengths_G(self) -> np.ndarray:
        """int64 [G], tokens."""
        return np.array([completion.num_tokens for completion in self.group.completions], np.int64)

    @property
    def correct_G(self) -> np.ndarray:
        """bool [G]: the domain's own verdict."""
        return np.array([score.correct for score in self.scores], bool)


@dataclass(frozen=True)
class StepAdvantages:
    """The advantages of a step, float64 [G] for each of its P groups, 0 for completions that are not trained on.

    `if_equally_long_PG` is what they would be if the answers of each group were as long as its shortest: what differs
    is due to length alone. `state` is what the next step's advantages need of this one's; it is logged and kept in
    checkpoints.

    >>> advantages = StepAdvantages((np.array([1.2, 0.8]),), (np.array([1.0, 1.0]),), {"beta": 0.4})
    >>> float(np.abs(advantages.by_group_PG[0] - advantages.if_equally_long_PG[0]).sum().round(3))
    0.4
    """

    by_group_PG: tuple[np.ndarray, ...]
    if_equally_long_PG: tuple[np.ndarray, ...]
    state: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainRow:
    """One completion and the advantage that all of its tokens share."""

    completion: Completion
    advantage: float


@dataclass(frozen=True)
class TrainGroup:
    """The rows of one prompt that take part in an update. They share the prompt's images, which are encoded once.

    >>> prompt = Prompt("math-1", "math", "1+1?", "2", (5, 6))
    >>> answer = Completion(np.array([7], np.int32), np.zeros(1, np.float32), "2", Finish.STOP, 0, 0)
    >>> TrainGroup(prompt, (TrainRow(answer, 1.0), TrainRow(answer, -1.0))).num_tokens  # 2 rows of 2 + 1
    6
    """

    prompt: Prompt
    rows: tuple[TrainRow, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows, prompts included: the unit of the micro-batch budget."""
        return sum(self.prompt.num_expanded_tokens + row.completion.num_tokens for row in self.rows)


@dataclass(frozen=True)
class Minibatch:
    """What one optimizer step trains on.

    `num_loss_tokens` and `num_loss_rows` count every usable completion, also those left out of `groups` because
    their advantage is zero: they are the step's denominators, whatever the micro-batching or the number of ranks.
    """

    groups: tuple[TrainGroup, ...]
    num_loss_tokens: int
    num_loss_rows: int


@dataclass(frozen=True)
class TrainBatch:
    """What one learner update trains on: one minibatch an optimizer step, in order.

    >>> TrainBatch(step=1, minibatches=(Minibatch((), num_loss_tokens=80, num_loss_rows=8),)).step
    1
    """

    step: int
    minibatches: tuple[Minibatch, ...]


@dataclass(frozen=True)
class LearnerUpdate:
    """Outcome of one update: the version of the new weights, and metrics averaged over the step's loss tokens.

    >>> LearnerUpdate(4, {"loss": -0.02, "grad_norm": 0.7}).version
    4
    """

    version: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class StepMetrics:
    """One row of `metrics.jsonl`.

    >>> StepMetrics(1, 1, {"reward_mean": 0.5}, {"learn": 0.8}).as_row()["seconds_learn"]
    0.8
    """

    step: int
    version: int
    values: Mapping[str, float]
    seconds: Mapping[str, float]

    def as_row(self) -> dict[str, float]:
        """Flat mapping; seconds get the prefix `seconds_`."""
        seconds = {f"seconds_{name}": value for name, value in self.seconds.items()}
        return {"step": self.step, "version": self.version, **self.values, **seconds}
