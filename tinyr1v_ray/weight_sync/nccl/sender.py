"""The learner's half of the transport `nccl`, in the process of its first rank."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from vllm.distributed.weight_transfer.nccl_common import trainer_init
from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

from tinyr1v_ray.weight_sync.nccl.group import NUM_PACKED_BUFFERS, PACKED_BUFFER_BYTES, TransferGroup


@functools.cache
def join(group: TransferGroup) -> Any:
    """This process's communicator of a group, made once; waits until every engine worker has joined."""
    address = {"master_address": group.master_address, "master_port": group.master_port}
    return trainer_init({**address, "world_size": group.world_size})


def broadcast(group: TransferGroup, weights: Iterable[tuple[str, torch.Tensor]], dtype: str) -> None:
    """Send every tensor, packed; returns when the last one has left.

    A buffer is packed of several tensors, each of which may be gone when the next one is asked for: hence the copies.
    """
    wire_dtype = getattr(torch, dtype)
    packed_nccl_broadcast_producer(
        iterator=iter(weights),
        group=join(group),
        src=0,
        post_iter_func=lambda named: named[1].to(wire_dtype, copy=True),
        buffer_size_bytes=PACKED_BUFFER_BYTES,
        num_buffers=NUM_PACKED_BUFFERS,
    )
    torch.accelerator.synchronize()
