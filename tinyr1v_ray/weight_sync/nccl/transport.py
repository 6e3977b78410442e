"""Weight transport `nccl`: the learner's first rank broadcasts to every engine worker, GPU to GPU.

The engines' half is vLLM's own backend of that name.
"""

from __future__ import annotations

import asyncio
import collections
from dataclasses import dataclass

from tinyr1v_ray.learner.rank import PublishedWeights
from tinyr1v_ray.rollout.engine import WeightUpdate
from tinyr1v_ray.weight_sync.nccl.group import TransferGroup
from tinyr1v_ray.weight_sync.transport import Edge, WeightTransport


@dataclass(frozen=True)
class NcclUpdate(WeightUpdate):
    """What vLLM's `update_weights` takes: the tensors in the order in which they are broadcast."""

    names: tuple[str, ...]
    dtype_names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Join:
    """The learner's half, once: its first rank joins the group, which waits until every engine worker has."""

    group: TransferGroup

    def __call__(self, weights: PublishedWeights) -> None:
        from tinyr1v_ray.weight_sync.nccl.sender import join

        join(self.group)


@dataclass(frozen=True)
class Broadcast:
    """The learner's half, for each version: the first rank sends, the others only take part in gathering."""

    group: TransferGroup
    dtype: str

    def __call__(self, weights: PublishedWeights) -> None:
        from tinyr1v_ray.weight_sync.nccl.sender import broadcast

        if weights.is_first:
            broadcast(self.group, weights, self.dtype)
        else:
            collections.deque(weights, maxlen=0)


@dataclass(frozen=True)
class Describe:
    """The tensors of a version, all in the same arithmetic."""

    dtype: str

    def __call__(self, weights: PublishedWeights) -> NcclUpdate:
        names = tuple(weights.shapes)
        return NcclUpdate(names, (self.dtype,) * len(names), tuple(weights.shapes.values()))


class NcclTransport(WeightTransport):
    """Engines cannot join the group later, so an engine that dies ends the attempt, which starts again from the last
    checkpoint with a new group.
    """

    def __init__(self, edge: Edge) -> None:
        super().__init__(edge)
        self._group: TransferGroup | None = None
        self._update = NcclUpdate((), (), ())

    async def connect(self) -> None:
        """Both halves meet: each waits for the other."""
        learner, engines, timeout_s = self._edge.learner, self._edge.engines, self._edge.settings.timeout_s
        address, port = await learner.free_endpoint()
        self._group = group = TransferGroup(address, port, engines.num_engines, engines.num_workers_per_engine)
        sources = [group.source(index) for index in range(engines.num_engines)]
        await asyncio.gather(self._edge.on_first_rank(Join(group)), engines.connect(sources, timeout_s))
        self._update = await self._edge.on_first_rank(Describe(self._edge.dtype))

    async def send(self, version: int) -> None:
        """Broadcast and receive at the same time."""
        assert self._group is not None, "connect comes first"
        sending = Broadcast(self._group, self._edge.dtype)
        await asyncio.gather(self._edge.on_all_ranks(sending), self._edge.load_weights(version, self._update))
