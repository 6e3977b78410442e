"""Progress of a training run: start-up phases, evaluations and steps, each with a line and a bar."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

import numpy as np

from tinyr1v_ray.telemetry.board import Board
from tinyr1v_ray.telemetry.display import Bar, Display
from tinyr1v_ray.telemetry.timing import WHOLE_STEP
from tinyr1v_ray.types import ScoredGroup, StepMetrics

SHORTEST_SHOWN_S = 0.05
"""Phases shorter than this are left out of a step's line."""
NUM_STEPS_AVERAGED = 10
"""Steps whose median time predicts the time left."""


class RunProgress:
    """Shows start-up phases, evaluations and steps, here and on `board`; a metric sink, so that it hears of every step.

    Use as a context manager inside that of the display.
    """

    def __init__(self, display: Display, num_steps: int, num_prompts_per_step: int) -> None:
        self._display, self.board = display, Board()
        self._stack = ExitStack()
        self._num_steps = num_steps
        self._num_prompts = num_prompts_per_step
        self._last_step = 0
        self._num_groups = 0
        self._recent_s: deque[float] = deque(maxlen=NUM_STEPS_AVERAGED)
        self._step_bar: Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._display.line(text)

    @contextmanager
    def starting(self, what: str, hint: str = "") -> Iterator[None]:
        """A start-up phase with its elapsed seconds; several may run side by side. `hint` says why it may take long."""
        self.line(f"starting {what}" + (f" ({hint})" if hint else ""))
        start = time.monotonic()
        with self.board.doing(f"starting {what}"), self._display.bar(f"starting {what}", None, hint):
            yield
        self.line(f"{what} ready after {time.monotonic() - start:.1f} s")

    @contextmanager
    def evaluating(self, what: str, num_items: int) -> Iterator[Callable[[int], None]]:
        """A held-out evaluation; call what it yields with the number of items just done."""
        self.line(f"evaluating {what}: {num_items} items")
        start, num_done = time.monotonic(), 0
        with (
            self.board.doing(f"evaluating {what}"),
            self._display.bar(f"evaluating {what}", num_items, f"0/{num_items}") as bar,
        ):

            def advance(num_items_done: int = 1) -> None:
                nonlocal num_done
                num_done += num_items_done
                bar.update(num_done, f"{num_done}/{num_items}")

            yield advance
        self.line(f"evaluated {what}: {num_done} items in {time.monotonic() - start:.1f} s")

    def go_on_from(self, step: int) -> None:
        """The next step is the one after `step`, with no group of it sampled yet."""
        self._last_step, self._num_groups = step, 0
        self.board.forget_groups()

    def count_group(self) -> None:
        """Another group of the step being collected is sampled and scored."""
        self._num_groups += 1
        self._update_step_bar()

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """Print the step's line and move the bar on."""
        self.board.log(metrics, groups, advantages_PG)
        self._num_groups = max(0, self._num_groups - len(groups))
        self._last_step = metrics.step
        if WHOLE_STEP in metrics.seconds:
            self._recent_s.append(metrics.seconds[WHOLE_STEP])
        self.line(format_step(metrics, self._num_steps, self.time_left_s()))
        self._update_step_bar()

    def close(self) -> None:
        """The context manager ends the display."""

    def time_left_s(self) -> float | None:
        """Predicted seconds until the last step, from the median of recent steps; None before the first."""
        if not self._recent_s:
            return None
        return statistics.median(self._recent_s) * max(0, self._num_steps - self._last_step)

    def _update_step_bar(self) -> None:
        left_s = self.time_left_s()
        count = f"{self._last_step}/{self._num_steps}"
        if self._num_groups:
            count += f", {self._num_groups}/{self._num_prompts} groups of the next"
        if left_s is not None:
            count += f", {format_duration(left_s)} left"
        if self._step_bar is None:
            self._step_bar = self._stack.enter_context(self._display.bar("steps", self._num_steps))
        self._step_bar.update(self._last_step, count)


def format_step(metrics: StepMetrics, num_steps: int, left_s: float | None) -> str:
    """One line about a step; a metric that the step lacks is left out, and so is a phase that took no time.

    >>> values = {"reward_mean": 0.8125, "accuracy": 0.75, "length_mean": 31.25}
    >>> format_step(StepMetrics(3, 3, values, {"generate": 1.6, "learn": 0.71, "step": 2.4}), 12, 21.6)
    'step  3/12  reward 0.812  accuracy 0.750  tokens 31.2  2.4 s (generate 1.6, learn 0.7)  22 s left'
    """
    width = len(str(num_steps))
    words = [f"step {metrics.step:{width}d}/{num_steps}"]
    shown = (("reward", "reward_mean", ".3f"), ("accuracy", "accuracy", ".3f"), ("tokens", "length_mean", ".1f"))
    words += [f"{label} {metrics.values[name]:{form}}" for label, name, form in shown if name in metrics.values]
    phases = ", ".join(
        f"{name} {value:.1f}"
        for name, value in metrics.seconds.items()
        if name != WHOLE_STEP and value >= SHORTEST_SHOWN_S
    )
    whole = f"{metrics.seconds[WHOLE_STEP]:.1f} s" if WHOLE_STEP in metrics.seconds else ""
    words.append(" ".join(part for part in (whole, f"({phases})" if phases else "") if part))
    if left_s is not None and metrics.step < num_steps:
        words.append(f"{format_duration(left_s)} left")
    return "  ".join(word for word in words if word)


def format_duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> format_duration(9.4), format_duration(260), format_duration(3900)
    ('9 s', '4 min 20 s', '1 h 05 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
