"""The learner's half of the transport `ipc`, in the process of each rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from tinyr1v_ray.errors import WeightSyncError
from tinyr1v_ray.weight_sync.ipc.chunks import IpcChunk


class Outgoing:
    """The weights of a version on their way through a buffer that holds one chunk at a time."""

    def __init__(self, weights: Iterable[tuple[str, Tensor]], num_bytes: int, device: torch.device) -> None:
        self._weights = iter(weights)
        self.buffer = torch.empty(num_bytes, dtype=torch.uint8, device=device)

    def pack(self, chunk: IpcChunk) -> None:
        """Put a chunk's tensors into the buffer, one behind the other; raises WeightSyncError where others come."""
        end = 0
        for name, dtype, size in zip(chunk.names, chunk.dtype_names, chunk.tensor_sizes, strict=True):
            self._take(name, getattr(torch, dtype), self.buffer[end : end + size])
            end += size
        if chunk.is_last and (left := next(self._weights, None)) is not None:
            raise _out_of_order(left[0], "nothing")

    def _take(self, name: str, dtype: torch.dtype, place: Tensor) -> None:
        found, tensor = next(self._weights, ("nothing", self.buffer))
        if found != name:
            raise _out_of_order(found, name)
        place.copy_(tensor.detach().to(dtype).reshape(-1).view(torch.uint8))


_outgoing: list[tuple[Outgoing, dict[str, tuple[Any, ...]]]] = []
"""Of this process, between the first chunk of a version and its release: its weights, and the handles of all ranks."""


def fill(weights: Iterable[tuple[str, Tensor]], chunk: IpcChunk, buffer_bytes: int) -> IpcChunk:
    """Fill this rank's buffer; the chunk with the handles of all ranks, when its last byte has arrived."""
    if chunk.is_first:
        _outgoing.clear()
        outgoing = Outgoing(weights, buffer_bytes, torch.device("cuda", torch.cuda.current_device()))
        _outgoing.append((outgoing, _handles(outgoing.buffer)))
    [(outgoing, handles)] = _outgoing
    outgoing.pack(chunk)
    torch.cuda.synchronize()
    return replace(chunk, ipc_handles=handles)


def release() -> None:
    """Give the buffer back; every engine has let go of it."""
    _outgoing.clear()
    torch.cuda.ipc_collect()
    torch.cuda.empty_cache()


def _handles(buffer: Tensor) -> dict[str, tuple[Any, ...]]:
    """By the UUID of its GPU, how another process there gets at a rank's buffer. Exported once a version: torch counts
    exports against the engines' letting go."""
    own = {str(torch.cuda.get_device_properties(buffer.device).uuid): reduce_tensor(buffer)[1]}
    every: list[dict[str, tuple[Any, ...]]] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(every, own)
    return {uuid: handle for one in every for uuid, handle in one.items()}


def _out_of_order(found: str, due: str) -> WeightSyncError:
    return WeightSyncError(
        f"weight {found} where {due} is due; tensors are sent in the order in which they were listed; mend the order"
    )
