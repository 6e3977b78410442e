"""What a person sees of an evaluation: lines that stay, and one bar with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tinyr1v_ray.telemetry.progress import format_duration

_BETWEEN_LINES_S = 10.0


class EvaluationProgress:
    """On a terminal a bar; elsewhere a line every ten seconds. Use as a context manager, in one thread."""

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(quiet=quiet, stderr=True)
        self._live = self._console.is_terminal and not self._console.quiet
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=self._console, disable=not self._live, transient=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def counting(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A bar; call what it yields with the number just done."""
        self.line(f"{what}: {total} {unit}")
        bar = self._bars.add_task(what, total=total)
        start, num_done = time.monotonic(), 0
        said_s = start

        def advance(num: int = 1) -> None:
            nonlocal num_done, said_s
            num_done += num
            self._bars.update(bar, completed=num_done)
            now_s = time.monotonic()
            if now_s - said_s >= _BETWEEN_LINES_S and num_done < total and not self._live:
                said_s = now_s
                left_s = (now_s - start) / num_done * (total - num_done)
                self.line(f"{what}: {num_done}/{total}, {format_duration(left_s)} left")

        try:
            yield advance
            self.line(f"{what}: {num_done} {unit} in {time.monotonic() - start:.1f} s")
        finally:
            self._bars.remove_task(bar)
