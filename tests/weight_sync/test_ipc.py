"""Chunks and messages of the IPC transfer, against vLLM's own half as far as it runs without a GPU: what crosses from
process to process is not run here."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Any, cast

import pytest
import torch
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferInitInfo, IPCWeightTransferUpdateInfo
from vllm.distributed.weight_transfer.packed_tensor import unpack_tensor

from tinyr1v_ray.config.weights import WeightSettings
from tinyr1v_ray.errors import WeightSyncError
from tinyr1v_ray.weight_sync.ipc.chunks import IpcChunk, IpcSource, chunks_of
from tinyr1v_ray.weight_sync.ipc.sender import Outgoing
from tinyr1v_ray.weight_sync.ipc.transport import Fill, IpcTransport, ListTensors, Release
from tinyr1v_ray.weight_sync.transport import Edge

SHAPES = {"embed": (50, 16), "a.weight": (8, 16), "a.bias": (8,), "scale": (), "b.weight": (16, 3), "norm": (16,)}


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return {**tensors, "b.weight": torch.randn(3, 16, generator=generator).T}  # not contiguous


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("most_bytes", [1, 100, 300, 10**9])
def test_what_is_packed_in_chunks_is_what_vllm_unpacks(dtype: str, most_bytes: int) -> None:
    """Every tensor once, rounded as the engine computes, through one buffer that no chunk exceeds."""
    tensors, chunks = weights(), chunks_of(SHAPES, dtype, most_bytes)
    largest = max(tensor.numel() for tensor in tensors.values()) * torch.empty(0, dtype=getattr(torch, dtype)).itemsize
    assert max(chunk.num_bytes for chunk in chunks) <= max(most_bytes, largest)
    assert [chunk.is_first for chunk in chunks] == [True, *[False] * (len(chunks) - 1)]
    assert [chunk.is_last for chunk in chunks] == [*[False] * (len(chunks) - 1), True]
    outgoing = Outgoing(tensors.items(), max(chunk.num_bytes for chunk in chunks), torch.device("cpu"))
    arrived = {}
    for chunk in chunks:
        outgoing.pack(chunk)
        parts = (list(chunk.names), list(chunk.shapes), [getattr(torch, name) for name in chunk.dtype_names])
        unpacked = unpack_tensor(outgoing.buffer[: chunk.num_bytes], *cast(Any, parts), list(chunk.tensor_sizes))
        arrived |= {name: tensor.clone() for name, tensor in unpacked}
    assert list(arrived) == list(tensors)
    for name, tensor in tensors.items():
        assert arrived[name].dtype == getattr(torch, dtype) and torch.equal(
            arrived[name], tensor.to(arrived[name].dtype)
        )


def test_vllm_takes_what_it_is_told() -> None:
    [chunk] = chunks_of(SHAPES, "bfloat16", 10**9)
    handle = (torch.Tensor, torch.Size([4]), (1,), 0, torch.UntypedStorage, torch.uint8, 3, b"handle", 4096, 0, b"", 0)
    info = IPCWeightTransferUpdateInfo(**replace(chunk, ipc_handles={"GPU-1": handle}).message())
    assert info.ipc_handles == {"GPU-1": handle} and isinstance(info.ipc_handles, dict)
    assert list(info.names) == list(SHAPES)
    assert IPCWeightTransferInitInfo(**asdict(IpcSource())).packed


@pytest.mark.parametrize("listed", [{"b": (2,), "a": (2,)}, {"a": (2,)}, {"a": (2,), "b": (2,), "c": (2,)}])
def test_tensors_in_another_order_or_number_are_refused(listed: dict[str, tuple[int, ...]]) -> None:
    [chunk] = chunks_of(listed, "float32", 10**9)
    outgoing = Outgoing({"a": torch.ones(2), "b": torch.ones(2)}.items(), chunk.num_bytes, torch.device("cpu"))
    with pytest.raises(WeightSyncError, match=r"where .* is due; tensors are sent in the order"):
        outgoing.pack(chunk)


class BothEnds:
    """A learner and two engines that note what they are told."""

    num_engines = 2

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def first(
        self, method: object, timeout_s: float, action: ListTensors, _: float
    ) -> dict[str, tuple[int, ...]]:
        return action(cast(Any, self))

    shapes = SHAPES

    async def everywhere(self, method: object, timeout_s: float, action: Fill | Release, _: float) -> IpcChunk | None:
        await asyncio.sleep(0)
        self.calls.append(("fill", action.chunk.names) if isinstance(action, Fill) else "release")
        return replace(action.chunk, ipc_handles={"GPU-1": ()}) if isinstance(action, Fill) else None

    async def connect(self, sources: list[IpcSource], timeout_s: float) -> None:
        assert [source.admits_replacements for source in sources] == [False, False]

    async def load_weights(self, version: int, chunk: IpcChunk, timeout_s: float) -> None:
        await asyncio.sleep(0)
        assert chunk.ipc_handles
        self.calls.append((version, chunk.names))


def test_a_buffer_is_filled_again_only_when_every_engine_has_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyr1v_ray.weight_sync.ipc.transport.CHUNK_BYTES", 300)
    ends = BothEnds()

    async def run() -> None:
        transport = IpcTransport(Edge(cast(Any, ends), cast(Any, ends), WeightSettings(), "bfloat16", "run"))
        await transport.connect()
        await transport.send(7)

    asyncio.run(run())
    names = [chunk.names for chunk in chunks_of(SHAPES, "bfloat16", 300)]
    assert len(names) == 3
    assert ends.calls == [call for each in names for call in (("fill", each), (7, each))] + ["release"]
