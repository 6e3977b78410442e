"""Where progress is shown: plain lines that stay and, on a terminal, live bars below them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Bar:
    """One live bar; without a terminal nothing is drawn."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def update(self, completed: float, count: str) -> None:
        """Move to `completed` of the total; `count` says it in words."""
        self._bars.update(self._task, completed=completed, count=count)


class Display:
    """Lines and bars on one console; use as a context manager. Any thread may print and move bars.

    Elsewhere than on a terminal only lines appear, so logs read well. `quiet` shows nothing. `labelled` views share the
    console and the bars, and tell work that goes on side by side apart.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(quiet=quiet, stderr=True)
        self._label = ""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
        )
        self._bars = Progress(*columns, console=self._console, disable=not self.is_live, transient=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    @property
    def is_live(self) -> bool:
        """Whether bars are drawn."""
        return self._console.is_terminal and not self._console.quiet

    def labelled(self, label: str) -> Display:
        """A view whose lines and bars begin with `label`."""
        view = copy.copy(self)
        view._label = f"{self._label}{label}: "
        return view

    def line(self, text: str) -> None:
        """Print a line that stays; bars go on below it."""
        self._console.print(self._label + text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, what: str, total: float | None, count: str = "") -> Iterator[Bar]:
        """A bar for the length of the block; no `total` for work of unknown size."""
        task = self._bars.add_task(self._label + what, total=total, count=count)
        try:
            yield Bar(self._bars, task)
        finally:
            self._bars.remove_task(task)
