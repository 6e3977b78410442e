"""A deadline for work that cannot be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def run_within(timeout_s: float, action: Callable[[], T], overdue: Callable[[], Exception]) -> T:
    """What `action` makes, in a thread of its own; raises `overdue()` when it takes longer.

    A rank that waits for another one in a collective cannot be called back, so the thread is left as it is: who gets
    the error ends the process.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(action())
        except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([outcome], timeout_s).done:
        raise overdue()
    return outcome.result()
