"""Says when a run teaches nothing, and what that probably comes from.

The rule: what a step lacks is told from its metrics alone, the likeliest cause first; several such steps in a row are
worth a line, since a single one may be chance. That all answers are right is a lack only where nothing is trained: LIPO
goes on from there to shorter answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tinyr1v_ray.types import ScoredGroup, StepMetrics

NUM_STEPS = 3
"""Steps in a row before a line is shown; then again after twice as many, and so on."""
TRUNCATED_SHARE = 0.95
_NUM_SHOWN = 5


class Lack(StrEnum):
    """What keeps a step from teaching anything, with its likely cause and what to do."""

    UNUSABLE = "no answer could be used: all are aborted, empty or unscored; see `failures` in groups.jsonl"
    TRUNCATED = (
        "nearly every answer is cut off at the longest length: the model does not come to its end; raise "
        "rollout.max_tokens, or see whether its chat template and end token are those that it was trained with"
    )
    UNREWARDED = (
        "no answer gets any reward: data.answer_column, the domain or reward.function does not fit the data, or the "
        "data is too hard for this model; see samples/"
    )
    WRONG = (
        "no answer is right, and all answers to a question get the same reward: the answers are not written as the "
        "reward reads them, or the data is too hard for this model; see samples/"
    )
    RIGHT = "every answer is right, and nothing is trained: the data is too easy for this model; use harder data"
    ALIKE = (
        "all answers to a question get the same reward, and nothing is trained: they are sampled too much alike "
        "(rollout.temperature, rollout.num_completions), or each question is too easy or too hard"
    )
    UNTRAINED = "no answer has an advantage, or the gradient is zero: nothing is trained; see the algorithm's settings"


def lack_of(values: Mapping[str, float | None]) -> Lack | None:
    """What a step lacks by its metrics, null or absent for what is not known; None for a step that teaches.

    >>> lack_of({"truncated_share": 0.0, "reward_mean": 0.1, "accuracy": 0.0, "equal_reward_share": 1.0}).name
    'WRONG'
    """
    known = {name: value for name, value in values.items() if value is not None and not math.isnan(value)}
    is_equal = known.get("equal_reward_share") == 1.0
    is_untrained = known.get("no_signal_share") == 1.0 or known.get("grad_norm") == 0.0
    found = {
        Lack.UNUSABLE: "reward_mean" not in known,
        Lack.TRUNCATED: known.get("truncated_share", 0.0) >= TRUNCATED_SHARE,
        Lack.UNREWARDED: is_equal and known.get("reward_mean") == 0.0,
        Lack.WRONG: is_equal and known.get("accuracy") == 0.0,
        Lack.RIGHT: is_untrained and known.get("accuracy") == 1.0,
        Lack.ALIKE: is_untrained and is_equal,
        Lack.UNTRAINED: is_untrained,
    }
    return next((lack for lack, is_so in found.items() if is_so), None)


class LessonWatch:
    """A sink that says on the screen when steps in a row teach nothing."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._num_steps, self._next = 0, NUM_STEPS

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """Count the step, and say so when it is time."""
        lack = lack_of(metrics.values)
        if lack is None:
            self._num_steps, self._next = 0, NUM_STEPS
            return
        self._num_steps += 1
        if self._num_steps == self._next:
            self._next *= 2
            self._say(f"warning: {_steps(metrics.step - self._num_steps + 1, metrics.step)}: {lack}")

    def close(self) -> None:
        """Nothing is held open."""


def read_lacks(path: Path) -> list[str]:
    """What a whole run lacked, from its `metrics.jsonl`, as lines for its summary; none without the file.

    Steps in a row that lack the same count from `NUM_STEPS` on, in a shorter run when all do.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return describe_lacks([json.loads(line) for line in file])


def describe_lacks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same, from the rows; the longest first, and how many more there are."""
    spans = sorted(_spans(rows), key=lambda span: span[0] - span[1])
    enough = min(NUM_STEPS, len(rows))
    lines = [f"{_steps(first, last)}: {lack}" for first, last, lack in spans if last - first + 1 >= enough]
    return lines[:_NUM_SHOWN] + ([f"{len(lines) - _NUM_SHOWN} more such spans"] if len(lines) > _NUM_SHOWN else [])


def _spans(rows: Iterable[Mapping[str, Any]]) -> Iterable[tuple[int, int, Lack]]:
    for lack, group in groupby(rows, key=lack_of):
        steps = [int(row["step"]) for row in group]
        if lack is not None:
            yield steps[0], steps[-1], lack


def _steps(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"
