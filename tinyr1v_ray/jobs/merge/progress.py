"""Progress of a merge: a bar with the time left, plain lines in a log, a line per tensor on request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tinyr1v_ray.merging.records import TensorRecord
from tinyr1v_ray.merging.schedule import Bundle
from tinyr1v_ray.merging.session import BundleResult
from tinyr1v_ray.telemetry.display import Bar, Display
from tinyr1v_ray.telemetry.progress import format_duration

_BYTES_PER_FLOP = 0.02
"""What a byte of I/O and a flop weigh against each other: 1 GB/s beside 50 GFLOP/s."""
_LINE_EVERY = 0.1


class MergeProgress:
    """A `session.Listener`. Use as a context manager inside that of the display."""

    def __init__(self, display: Display, per_tensor: bool = False) -> None:
        self._display, self._per_tensor = display, per_tensor
        self._stack = ExitStack()
        self._bar: Bar | None = None
        self._num_tasks = 0
        self._total = 0.0
        self._done = 0.0
        self._tensors = 0
        self._started_s = time.monotonic()
        self._next_line = _LINE_EVERY

    def __enter__(self) -> Self:
        self._bar = self._stack.enter_context(self._display.bar("merging", 1.0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def time_left_s(self) -> float | None:
        """From the work done so far in this run; None before the first bundle."""
        if self._done <= 0:
            return None
        elapsed = time.monotonic() - self._started_s
        return elapsed * max(self._total - self._done, 0.0) / self._done

    def begin(self, bundles: Sequence[Bundle]) -> None:
        """These are to be done; what an interrupted merge had finished is not among them."""
        self._total = sum(_weight(bundle) for bundle in bundles)
        self._num_tasks = sum(len(bundle.tasks) for bundle in bundles)
        self._started_s = time.monotonic()

    def on_result(self, result: BundleResult) -> None:
        """Move the bar; print the tensors when asked to."""
        self._done += _weight(result.bundle)
        self._tensors += len(result.records)
        if self._per_tensor:
            for _, records in result.records:
                for record in records:
                    self._display.line(describe_record(record))
        left_s = self.time_left_s
        detail = f"{self._tensors}/{self._num_tasks} tensors"
        if left_s is not None:
            detail += f", {format_duration(left_s)} left"
        share = min(self._done / self._total, 1.0) if self._total else 1.0
        if self._bar is not None:
            self._bar.update(share, f"{share:.0%}, {detail}")
        if not self._display.is_live and share >= self._next_line:
            self._next_line = share + _LINE_EVERY
            self._display.line(f"merging {share:.0%}: {detail}")


def _weight(bundle: Bundle) -> float:
    return bundle.flops * _BYTES_PER_FLOP + bundle.io_bytes


def describe_record(record: TensorRecord) -> str:
    """One line about a tensor.

    >>> describe_record(TensorRecord(0, "", "lm_head.weight", "lm_head.weight", "head", (8, 4), "averaged", "average",
    ...                              "", "0", seconds=0.25, merged_norm=0.5, retention_cosine=1.0))
    'lm_head.weight 8x4 averaged by average 0.25 s  |m| 0.5  retention 1.000'
    """
    words = [f"{record.stored_name} {'x'.join(str(side) for side in record.shape)} {record.action} by {record.rule}"]
    words[0] += f"{' (' + record.form + ')' if record.form else ''} {record.seconds:.2f} s"
    if record.method:
        words[0] = f"{record.method}: {words[0]}"
    if record.loss_first is not None:
        words.append(f"loss {record.loss_first:.3g} -> {record.loss_last:.3g}")
    if record.merged_norm is not None:
        words.append(f"|m| {record.merged_norm:.3g}")
    if record.retention_cosine is not None:
        words.append(f"retention {record.retention_cosine:.3f}")
    return "  ".join(words)
