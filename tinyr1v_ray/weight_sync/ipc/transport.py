"""Weight transport `ipc`: each learner rank hands weights to the engine on its own GPU, by CUDA IPC, in chunks.

A rank fills one buffer, engines copy it into their models, and only then it is filled again; the driver passes no more
than names and handles. The engines' half is vLLM's own backend of that name, in its packed form. It takes the handle of
its GPU from those of all ranks. What crosses from process to process was never run, for want of a GPU; packing and
messages are tested on the CPU against vLLM's own unpacking.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyr1v_ray.learner.rank import PublishedWeights
from tinyr1v_ray.weight_sync.ipc.chunks import CHUNK_BYTES, IpcChunk, IpcSource, chunks_of
from tinyr1v_ray.weight_sync.transport import Edge, WeightTransport


@dataclass(frozen=True)
class ListTensors:
    """The learner's half, once: what will be sent, in which order."""

    def __call__(self, weights: PublishedWeights) -> dict[str, tuple[int, ...]]:
        return dict(weights.shapes)


@dataclass(frozen=True)
class Fill:
    """The learner's half, for each chunk: every rank fills its buffer; the first chunk brings it, of `buffer_bytes`."""

    chunk: IpcChunk
    buffer_bytes: int

    def __call__(self, weights: PublishedWeights) -> IpcChunk:
        from tinyr1v_ray.weight_sync.ipc.sender import fill

        return fill(weights, self.chunk, self.buffer_bytes)


@dataclass(frozen=True)
class Release:
    """The learner's half, at the end: every rank gives its buffer back."""

    def __call__(self, weights: PublishedWeights) -> None:
        from tinyr1v_ray.weight_sync.ipc.sender import release

        release()


class IpcTransport(WeightTransport):
    """An engine that dies ends the attempt, which starts again from the last checkpoint with new ones."""

    def __init__(self, edge: Edge) -> None:
        super().__init__(edge)
        self._chunks: tuple[IpcChunk, ...] = ()

    async def connect(self) -> None:
        """Nobody waits for anybody: a handle comes with each chunk."""
        engines = self._edge.engines
        await engines.connect([IpcSource() for _ in range(engines.num_engines)], self._edge.settings.timeout_s)
        shapes = await self._edge.on_first_rank(ListTensors())
        self._chunks = chunks_of(shapes, self._edge.dtype, CHUNK_BYTES)

    async def send(self, version: int) -> None:
        """Fill, load everywhere, fill again."""
        buffer_bytes = max(chunk.num_bytes for chunk in self._chunks)
        for chunk in self._chunks:
            filled = await self._edge.on_all_ranks(Fill(chunk, buffer_bytes))
            await self._edge.load_weights(version, filled)
        await self._edge.on_all_ranks(Release())
