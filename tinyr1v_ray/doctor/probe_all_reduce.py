"""Probe, run as a module: two processes on this machine sum a vector over gloo or NCCL."""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing

from tinyr1v_ray.doctor.finding import CheckResult, Status, write_result

NUM_RANKS = 2
LENGTH = 1 << 16


def _rank(rank: int, backend: str, meeting_point: str, timeout_s: float) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        backend,
        init_method=f"file://{meeting_point}",
        rank=rank,
        world_size=NUM_RANKS,
        timeout=timedelta(seconds=timeout_s),
    )
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    vector = torch.full((LENGTH,), float(rank + 1), device=device)
    torch.distributed.all_reduce(vector)
    if not bool((vector == sum(range(1, NUM_RANKS + 1))).all()):
        raise ValueError(f"rank {rank} got {vector[:4].tolist()} instead of {sum(range(1, NUM_RANKS + 1))}")
    torch.distributed.destroy_process_group()


def main() -> None:
    """Timeout in seconds is the only argument. An error ends the process; its text is the finding."""
    timeout_s = float(sys.argv[1])
    backend = "nccl" if torch.cuda.is_available() and torch.cuda.device_count() >= NUM_RANKS else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        meeting_point = str(Path(folder) / "meeting_point")
        torch.multiprocessing.start_processes(
            _rank,
            (backend, meeting_point, timeout_s),
            NUM_RANKS,
            start_method="spawn" if backend == "nccl" else "fork",  # CUDA cannot be forked; a fork saves two imports
        )
    interface = os.environ.get(f"{backend.upper()}_SOCKET_IFNAME", "")
    over = f" over {interface}" if interface else ""
    write_result(CheckResult(Status.OK, f"{backend}, {NUM_RANKS} processes{over}: right sums"))


if __name__ == "__main__":
    main()
