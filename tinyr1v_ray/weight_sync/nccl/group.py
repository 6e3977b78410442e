"""The group that weights are broadcast in, and what both halves must agree on: who is who in it, and the packing.

The learner's first rank is the group's rank 0; engine i of `workers_per_engine` tensor-parallel workers takes ranks
1 + i * workers_per_engine onward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tinyr1v_ray.rollout.engine import WeightSource

PACKED_BUFFER_BYTES = 1 << 30
NUM_PACKED_BUFFERS = 2


@dataclass(frozen=True)
class NcclSource(WeightSource):
    """What vLLM's `init_weight_transfer_engine` takes for one engine. A group's members are fixed."""

    admits_replacements: ClassVar[bool] = False

    master_address: str
    master_port: int
    rank_offset: int
    world_size: int
    packed: bool = True
    packed_buffer_size_bytes: int = PACKED_BUFFER_BYTES
    packed_num_buffers: int = NUM_PACKED_BUFFERS


@dataclass(frozen=True)
class TransferGroup:
    """Where the group meets and how large it is: one learner rank and every engine worker.

    >>> TransferGroup("10.0.0.1", 4000, num_engines=2, workers_per_engine=4).source(1).rank_offset
    5
    """

    master_address: str
    master_port: int
    num_engines: int
    workers_per_engine: int

    @property
    def world_size(self) -> int:
        """Processes in the group."""
        return 1 + self.num_engines * self.workers_per_engine

    def source(self, engine_index: int) -> NcclSource:
        """What one engine is told."""
        rank_offset = 1 + engine_index * self.workers_per_engine
        return NcclSource(self.master_address, self.master_port, rank_offset, self.world_size)
