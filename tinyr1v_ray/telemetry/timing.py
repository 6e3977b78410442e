"""Where a step's wall time goes: a clock with named phases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WHOLE_STEP = "step"
"""Name under which a lap reports its whole wall time, beside the phases."""


class PhaseClock:
    """Adds up wall seconds by phase, between one lap and the next.

    A phase may be entered again, by several tasks at once too: it counts the time during which at least one was
    inside, so no phase exceeds the lap. Different phases may overlap (an asynchronous run generates while it learns),
    so their sum may exceed it. A phase that is open at a lap gives the part so far to that lap and the rest to the
    next.

    >>> clock = PhaseClock(now=iter([0.0, 1.0, 3.0, 5.0]).__next__)
    >>> with clock("learn"):
    ...     pass
    >>> clock.lap()
    {'learn': 2.0, 'step': 5.0}
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lap_start = now()
        self._seconds: dict[str, float] = {}
        self._num_inside: dict[str, int] = {}
        self._entered: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the body's wall time as `phase`, also when it raises."""
        if phase == WHOLE_STEP:
            raise ValueError(f"a phase may not be called {WHOLE_STEP!r}: the lap itself is")
        if not self._num_inside.get(phase):
            self._entered[phase] = self._now()
        self._num_inside[phase] = self._num_inside.get(phase, 0) + 1
        try:
            yield
        finally:
            self._num_inside[phase] -= 1
            if not self._num_inside[phase]:
                self._add(phase, self._now())

    def lap(self) -> dict[str, float]:
        """Seconds by phase since the last lap (or the start), and `step`, the whole; then start from zero."""
        now = self._now()
        for phase in [phase for phase, inside in self._num_inside.items() if inside]:
            self._add(phase, now)
            self._entered[phase] = now
        seconds = {**self._seconds, WHOLE_STEP: now - self._lap_start}
        self._seconds, self._lap_start = {}, now
        return seconds

    def _add(self, phase: str, now: float) -> None:
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._entered.pop(phase)
