"""What went wrong on the way and was overcome, on disk: every warning of the package while a run lasts, with its time.

Restarts of engines, scorers and learner are logged with their causes where they happen, so nothing else has to know.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from tinyr1v_ray.files.json_lines import JsonLines

EVENTS_FILE = "events.jsonl"
_MOST_EVENTS = 10_000
"""Written by one process: what repeats for ever fills no disk."""
_CURRENT: ContextVar[_EventLog | None] = ContextVar("the run whose warnings these are", default=None)


class _EventLog(logging.Handler):
    """Writes the warnings of the tasks in whose context it is current, so that runs side by side keep theirs apart."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.WARNING)
        self._rows, self._num_left = JsonLines(path), _MOST_EVENTS

    def emit(self, record: logging.LogRecord) -> None:
        """Append it; a disk that does not take it is passed over."""
        if _CURRENT.get() is self and self._num_left:
            self._num_left -= 1
            with suppress(OSError):
                self._rows.append([{"time": record.created, "text": " ".join(record.getMessage().split())}])

    def close(self) -> None:
        """Let go of the file."""
        self._rows.close()
        super().close()


@contextmanager
def events_kept(folder: Path) -> Iterator[None]:
    """Write the package's warnings to `events.jsonl` for the length of the block."""
    log, package = _EventLog(folder / EVENTS_FILE), logging.getLogger("tinyr1v_ray")
    package.addHandler(log)
    token = _CURRENT.set(log)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        package.removeHandler(log)
        log.close()
