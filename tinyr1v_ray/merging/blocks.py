"""How a tensor is cut into blocks of whole rows: the same everywhere, since blocks seed random masks and rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

CHUNK_ELEMENTS = 1 << 18
"""A block has about this many elements: small enough for the caches, whatever the size of the tensor."""

Blocks = Callable[[], Iterable[Tensor]]
"""Starts a pass over a tensor's task vectors in float32 blocks [K, n]."""


def rows_per_block(columns: int) -> int:
    """Whole rows, at least one."""
    return max(1, CHUNK_ELEMENTS // max(columns, 1))


def row_blocks(rows: int, columns: int) -> Iterator[tuple[int, int, int]]:
    """(number, first row, row after the last) of every block.

    Worked example: 1000 rows of 1024 are cut at 256, 512 and 768.
    """
    step = rows_per_block(columns)
    for number, first in enumerate(range(0, rows, step)):
        yield number, first, min(first + step, rows)
