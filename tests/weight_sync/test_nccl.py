"""What both halves of the NCCL transfer must agree on; the transfer itself needs GPUs and is not run here."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, cast

import torch
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferInitInfo, NCCLWeightTransferUpdateInfo

from tinyr1v_ray.weight_sync.nccl.group import TransferGroup
from tinyr1v_ray.weight_sync.nccl.transport import Describe


def test_every_worker_has_a_rank_of_its_own_and_vllm_takes_what_it_is_told() -> None:
    group = TransferGroup("10.0.0.1", 4000, num_engines=3, workers_per_engine=2)
    infos = [NCCLWeightTransferInitInfo(**asdict(group.source(index))) for index in range(3)]
    ranks = [info.rank_offset + worker for info in infos for worker in range(2)]
    assert [0, *ranks] == list(range(group.world_size))
    assert {info.world_size for info in infos} == {7}
    assert all(info.packed for info in infos)


def test_an_update_lists_the_tensors_in_order() -> None:
    weights = SimpleNamespace(shapes={"a.weight": (3, 2), "b.bias": (4,)})
    info = NCCLWeightTransferUpdateInfo(**Describe("bfloat16")(cast(Any, weights)).message())
    assert info.names == ("a.weight", "b.bias")
    assert info.shapes == ((3, 2), (4,))
    assert [getattr(torch, name) for name in info.dtype_names] == [torch.bfloat16, torch.bfloat16]
