"""Several futures as one: their results together, or one failure for all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def all_of(futures: Sequence[Future[T]]) -> Future[list[T]]:
    """One future for several, which all come from one thread; it fails with the first that fails."""
    together: Future[list[T]] = Future()

    def note(done: Future[T]) -> None:
        if together.done():
            return
        if error := done.exception():
            together.set_exception(error)
        elif all(future.done() for future in futures):
            together.set_result([future.result() for future in futures])

    for future in futures:
        future.add_done_callback(note)
    if not futures:
        together.set_result([])
    return together


def fail_all(futures: list[Any], error: BaseException | None) -> None:
    """The same error for whoever still waits; none where there is none."""
    for future in futures:
        if error is not None and not future.done():
            future.set_exception(error)
