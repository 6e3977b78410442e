"""What runs inside the Ray actors: a host around a role, such as an engine, a scorer or a learner rank.

A role is built in the process that needs it, by a function that is sent there: the driver, which only talks to roles,
starts without vLLM and DeepSpeed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from tinyr1v_ray.errors import ModelError


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far; what its parent had before does not count, as in ru_maxrss."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


class Host:
    """A role in a process of its own, built at once, or later by `build` where others must be asked first.

    `devices` are GPUs that other processes reserve and this one uses too; CUDA reads their names when it starts.
    """

    def __init__(self, build: Callable[[], Any] | None = None, *devices: list[str]) -> None:
        if any(devices):
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(name for names in devices for name in names)
        self._refusal: ModelError | None = None
        try:
            if build is not None:
                self.build(build)
        except ModelError as error:  # no death: a replacement would refuse the same model
            self._refusal = error

    def build(self, build: Callable[[], Any]) -> None:
        """Make the role."""
        self._role = build()

    def started(self) -> None:
        """Answering says that the process runs, and its role if it was built at once; raises why a model is refused."""
        if self._refusal is not None:
            raise self._refusal

    def devices(self) -> list[str]:
        """GPUs that this process reserves, by the names that its node gives them."""
        return [str(name) for name in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """What a method of the role returns."""
        return getattr(self._role, method)(*args, **kwargs)

    def peak_memory_mib(self) -> float:
        """Largest resident memory of the process."""
        return peak_memory_mib()

    def free_endpoint(self) -> tuple[str, int]:
        """Address of this node, as the other nodes see it, and a port that is free now."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]


class ConcurrentHost(Host):
    """A role whose methods return futures, so that many calls are under way at once."""

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """What comes of the future that a method of the role returns."""
        return await asyncio.wrap_future(getattr(self._role, method)(*args, **kwargs))
