"""Where a run stands at this moment: kept by the driver in memory, and put on disk every second for who watches.

`now.json` is a sign of life, not a record: it is replaced without waiting for the disk, and a run that is killed
leaves the one of its last second.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from tinyr1v_ray.types import Prompt, ScoredGroup, StepMetrics

NOW_FILE = "now.json"
FINISHED = "finished"
EVERY_S = 1.0
_MOST_GROUPS = 2000
"""Written one by one, the oldest first; the others are counted."""


class GroupState(StrEnum):
    """How far a group is, from its prompt's issue to the end of its step."""

    SAMPLING = "sampling"
    SCORING = "scoring"
    READY = "ready"
    LEARNING = "learning"


class Board:
    """Groups in flight, and what the driver does; a metric sink, so that it hears of every step.

    `loads` tells what engines and scorers have in hand, by name, while there are any. All methods belong to the event
    loop of the run.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._groups: dict[int, tuple[str, GroupState, float]] = {}
        self._doing: dict[str, float] = {}
        self.loads: Callable[[], Mapping[str, Mapping[str, Any]]] = dict

    def move(self, prompt: Prompt, state: GroupState) -> None:
        """A group has come to another state."""
        self._groups[prompt.position] = (prompt.prompt_id, state, self._now())

    def take(self, group: ScoredGroup, is_accepted: bool) -> bool:
        """The loop takes a group for its step, or turns it away; `is_accepted` is handed on."""
        if is_accepted:
            self.move(group.group.prompt, GroupState.LEARNING)
        else:
            self._groups.pop(group.group.prompt.position, None)
        return is_accepted

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """The driver does this for the length of the block."""
        self._doing[what] = self._now()
        try:
            yield
        finally:
            self._doing.pop(what, None)

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """The step's groups are trained."""
        for group in groups:
            self._groups.pop(group.group.prompt.position, None)

    def forget_groups(self) -> None:
        """What is in flight is trained on no more: the last step is made, or another attempt begins."""
        self._groups.clear()

    def as_row(self, ended: str = "") -> dict[str, Any]:
        """Plain values; times are seconds since the epoch. `ended` is empty, FINISHED, or what ended the run."""
        groups = sorted(self._groups.items())
        return {
            "written": self._now(),
            "host": platform.node(),
            "pid": os.getpid(),
            "ended": ended,
            "doing": dict(self._doing),
            "states": Counter(state for _, (_, state, _) in groups),
            "groups": [[position, *of] for position, of in groups[:_MOST_GROUPS]],
            "loads": {name: dict(load) for name, load in self.loads().items()},
        }


@asynccontextmanager
async def shown(board: Board, folder: Path) -> AsyncIterator[None]:
    """Keep `now.json` up to date for the length of the block, and say in it how the block ended.

    A disk that does not take it is passed over: the run's own records are at stake then, and complain.
    """

    over = asyncio.Event()

    async def keep_writing() -> None:
        while not over.is_set():
            await asyncio.to_thread(_write, folder, board.as_row())
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), EVERY_S)

    ended, writer = FINISHED, asyncio.create_task(keep_writing())
    try:
        yield
    except BaseException as error:
        ended = " ".join(str(error).split()) or "interrupted"
        raise
    finally:
        over.set()
        with suppress(asyncio.CancelledError):
            await writer  # not cancelled: a write under way would come after the last one
        _write(folder, board.as_row(ended))


def _write(folder: Path, row: Mapping[str, Any]) -> None:
    temporary = folder / f".{NOW_FILE}.tmp"
    with suppress(OSError):
        temporary.write_text(json.dumps(row) + "\n", encoding="utf-8")
        temporary.replace(folder / NOW_FILE)
