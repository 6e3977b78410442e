"""The weight transports, by the name that `weights.backend` gives them."""

from __future__ import annotations

from collections.abc import Mapping

from tinyr1v_ray.weight_sync.cpu_file.transport import FileTransport
from tinyr1v_ray.weight_sync.ipc.transport import IpcTransport
from tinyr1v_ray.weight_sync.nccl.transport import NcclTransport
from tinyr1v_ray.weight_sync.transport import WeightTransport

TRANSPORTS: Mapping[str, type[WeightTransport]] = {
    "cpu_file": FileTransport,
    "nccl": NcclTransport,
    "ipc": IpcTransport,
}
