"""What both halves of the NCCL transfer must agree on; the transfer itself needs GPUs and is not run here."""

from __future__ import annotations

import torch
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferInitInfo, NCCLWeightTransferUpdateInfo

from tinyr1v_ray.rollout.nccl_sender import TransferGroup, update_info


def test_every_worker_has_a_rank_of_its_own_and_vllm_takes_what_it_is_told() -> None:
    group = TransferGroup("10.0.0.1", 4000, num_engines=3, workers_per_engine=2)
    infos = [NCCLWeightTransferInitInfo(**group.init_info(index)) for index in range(3)]
    ranks = [info.rank_offset + worker for info in infos for worker in range(2)]
    assert [0, *ranks] == list(range(group.world_size))
    assert {info.world_size for info in infos} == {7}
    assert all(info.packed for info in infos)


def test_update_info_lists_the_tensors_in_order() -> None:
    weights = [("a.weight", torch.Size([3, 2])), ("b.bias", torch.Size([4]))]
    info = NCCLWeightTransferUpdateInfo(**update_info(weights, "bfloat16"))
    assert info.names == ["a.weight", "b.bias"]
    assert info.shapes == [[3, 2], [4]]
    assert [getattr(torch, name) for name in info.dtype_names] == [torch.bfloat16, torch.bfloat16]
