"""What both halves of the IPC transfer must agree on: which tensors a chunk holds, in which order, and its handles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from tinyr1v_ray.rollout.engine import WeightSource, WeightUpdate

CHUNK_BYTES = 1 << 29
"""Of a buffer, unless a single tensor is larger (the embedding of a 3B model in bfloat16 has 0.6 GiB)."""
_BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class IpcSource(WeightSource):
    """What vLLM's `init_weight_transfer_engine` takes. A chunk is gone when the next is filled, so nothing can be told
    again to an engine that comes later."""

    admits_replacements: ClassVar[bool] = False

    packed: bool = True


@dataclass(frozen=True)
class IpcChunk(WeightUpdate):
    """What vLLM's `update_weights` takes: tensors in the order in which they lie in a buffer, and by the UUID of its
    GPU the handle of each rank's buffer."""

    names: tuple[str, ...]
    dtype_names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    tensor_sizes: tuple[int, ...]
    ipc_handles: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Of the buffer that are filled."""
        return sum(self.tensor_sizes)


def chunks_of(shapes: Mapping[str, tuple[int, ...]], dtype: str, most_bytes: int) -> tuple[IpcChunk, ...]:
    """All tensors in order, as many in a chunk as fit; one that is larger is alone.

    >>> [chunk.names for chunk in chunks_of({"a": (3, 2), "b": (4,), "c": (9, 9), "d": (1,)}, "bfloat16", 20)]
    [('a', 'b'), ('c',), ('d',)]
    """
    chunks = [
        IpcChunk(
            names=tuple(names),
            dtype_names=(dtype,) * len(names),
            shapes=tuple(shapes[name] for name in names),
            tensor_sizes=tuple(math.prod(shapes[name]) * _BYTES_PER_VALUE[dtype] for name in names),
        )
        for names in _grouped(shapes, most_bytes // _BYTES_PER_VALUE[dtype])
    ]
    last = len(chunks) - 1
    return tuple(replace(chunk, is_first=index == 0, is_last=index == last) for index, chunk in enumerate(chunks))


def _grouped(shapes: Mapping[str, tuple[int, ...]], most_values: int) -> Iterator[list[str]]:
    names: list[str] = []
    num_values = 0
    for name, shape in shapes.items():
        if names and num_values + math.prod(shape) > most_values:
            yield names
            names, num_values = [], 0
        names.append(name)
        num_values += math.prod(shape)
    yield names
