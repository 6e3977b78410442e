"""The learner's half of vLLM's `nccl` weight-transfer backend: broadcast new weights to every engine worker.

The engines' half is vLLM's own. Both halves must agree on the group (address, port, size, each engine's first rank) and
on the packing, so what each engine is told is made here too. The learner's rank 0 is the group's rank 0; engine i of
`workers_per_engine` tensor-parallel workers takes ranks 1 + i * workers_per_engine onward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.nccl_common import trainer_init
from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

PACKED_BUFFER_BYTES = 1 << 30
NUM_PACKED_BUFFERS = 2


@dataclass(frozen=True)
class TransferGroup:
    """Where the group meets and how large it is: one learner rank and every engine worker.

    >>> TransferGroup("10.0.0.1", 4000, num_engines=2, workers_per_engine=4).init_info(1)["rank_offset"]
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

    def init_info(self, engine_index: int) -> dict[str, Any]:
        """What vLLM's `init_weight_transfer_engine` takes for one engine."""
        return {
            "master_address": self.master_address,
            "master_port": self.master_port,
            "rank_offset": 1 + engine_index * self.workers_per_engine,
            "world_size": self.world_size,
            "packed": True,
            "packed_buffer_size_bytes": PACKED_BUFFER_BYTES,
            "packed_num_buffers": NUM_PACKED_BUFFERS,
        }


def update_info(weights: Iterable[tuple[str, torch.Size]], dtype: str) -> dict[str, Any]:
    """What vLLM's `update_weights` takes: the tensors in the order in which `NcclSender.send` broadcasts them."""
    named = list(weights)
    return {
        "names": [name for name, _ in named],
        "dtype_names": [dtype] * len(named),
        "shapes": [list(shape) for _, shape in named],
    }


class NcclSender:
    """Rank 0 of the group. Opening it waits until every engine worker has joined, so engines must join meanwhile."""

    def __init__(self, group: TransferGroup) -> None:
        address = {"master_address": group.master_address, "master_port": group.master_port}
        self._communicator = trainer_init({**address, "world_size": group.world_size})

    def send(self, weights: Iterator[tuple[str, torch.Tensor]], dtype: str) -> None:
        """Broadcast every tensor, packed; returns when the last one has left."""
        wire_dtype = getattr(torch, dtype)
        packed_nccl_broadcast_producer(
            iterator=weights,
            group=self._communicator,
            src=0,
            post_iter_func=lambda named: named[1].to(wire_dtype),
            buffer_size_bytes=PACKED_BUFFER_BYTES,
            num_buffers=NUM_PACKED_BUFFERS,
        )
        torch.accelerator.synchronize()
