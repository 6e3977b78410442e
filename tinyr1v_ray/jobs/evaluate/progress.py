"""Progress of an evaluation: lines, and one bar with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinyr1v_ray.telemetry.display import Display
from tinyr1v_ray.telemetry.progress import format_duration

_BETWEEN_LINES_S = 10.0


class EvaluationProgress:
    """On a terminal a bar; elsewhere a line every ten seconds."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._display.line(text)

    @contextmanager
    def counting(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A bar; call what it yields with the number just done."""
        self.line(f"{what}: {total} {unit}")
        start, num_done = time.monotonic(), 0
        said_s = start
        with self._display.bar(what, total, f"0/{total}") as bar:

            def advance(num: int = 1) -> None:
                nonlocal num_done, said_s
                num_done += num
                now_s = time.monotonic()
                left = format_duration((now_s - start) / num_done * (total - num_done))
                bar.update(num_done, f"{num_done}/{total}, {left} left")
                if now_s - said_s >= _BETWEEN_LINES_S and num_done < total and not self._display.is_live:
                    said_s = now_s
                    self.line(f"{what}: {num_done}/{total}, {left} left")

            yield advance
        self.line(f"{what}: {num_done} {unit} in {time.monotonic() - start:.1f} s")
