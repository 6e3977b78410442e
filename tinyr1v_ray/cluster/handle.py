"""A role in another process, as its caller sees it: typed calls, each with a deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import ray
from ray.actor import ActorHandle

from tinyr1v_ray.cluster.actors import ConcurrentHost, Host
from tinyr1v_ray.cluster.calls import finish
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.cluster.reservation import Reservation
from tinyr1v_ray.config.custom_function import search_path

RoleT = TypeVar("RoleT")
P = ParamSpec("P")
T = TypeVar("T")

MAX_CONCURRENT_CALLS = 10_000
"""Groups that an engine may hold at once: the window bounds them, not Ray."""


class Handle(Generic[RoleT]):
    """A hosted role. A call names a method of its class or protocol: `handle.call(LearnerRank.update, 60.0, batch)`.

    Every wait raises DeadlineError after its `timeout_s` (None: never), RayActorError when the process is gone, and
    what the role itself raised where that is an error of ours or of the operating system.
    """

    def __init__(self, actor: ActorHandle, name: str) -> None:
        self._actor, self.name = actor, name

    @cached_property
    def devices(self) -> ray.ObjectRef:
        """Reference to the names of the GPUs that the process reserves; asked once, since it may be busy later."""
        return self._actor.devices.remote()

    def submit(self, method: Callable[Concatenate[RoleT, P], Any], *args: P.args, **kwargs: P.kwargs) -> ray.ObjectRef:
        """Reference to what a method will have returned."""
        return self._actor.call.remote(method.__name__, *args, **kwargs)

    async def call(
        self, method: Callable[Concatenate[RoleT, P], T], timeout_s: float | None, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What a method returns."""
        answer: T = await finish(self.submit(method, *args, **kwargs), self.name, method.__name__, timeout_s)
        return answer

    async def result(
        self,
        method: Callable[Concatenate[RoleT, P], Future[T]],
        timeout_s: float | None,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What comes of the future that a method of a concurrent role returns."""
        answer: T = await finish(self.submit(method, *args, **kwargs), self.name, method.__name__, timeout_s)
        return answer

    async def build(self, build: Callable[[], RoleT], timeout_s: float) -> None:
        """Make the role, if that was put off."""
        await finish(self._actor.build.remote(build), self.name, "start", timeout_s)

    async def started(self, timeout_s: float) -> None:
        """Wait until the process runs, and with it a role that was built at once."""
        await finish(self._actor.started.remote(), self.name, "start", timeout_s)

    async def peak_memory_mib(self, timeout_s: float) -> float:
        """Largest resident memory of the process."""
        return float(await finish(self._actor.peak_memory_mib.remote(), self.name, "peak_memory_mib", timeout_s))

    async def free_endpoint(self, timeout_s: float) -> tuple[str, int]:
        """Address of the process's node, and a port that is free there."""
        address, port = await finish(self._actor.free_endpoint.remote(), self.name, "free_endpoint", timeout_s)
        return address, port

    def kill(self) -> None:
        """End the process at once; one that is gone already is fine."""
        ray.kill(self._actor, no_restart=True)


def spawn(
    spec: ActorSpec,
    build: Callable[[], RoleT] | None,
    reservation: Reservation | None = None,
    *,
    concurrent: bool = False,
    hosts: Sequence[Handle[Any]] = (),
) -> Handle[RoleT]:
    """Start the process of a role, on what is reserved for it; the one place where a class becomes a Ray actor.

    `concurrent` is for a role whose methods return futures; one with `hosts` computes on their GPUs. Ray restarts
    nothing: whoever holds the handle knows what a replacement must be told first. The actor's class, and so the title
    of its process, has the role's name.
    """
    host = type(spec.role, (ConcurrentHost if concurrent else Host,), {})
    remote = ray.remote(host).options(
        num_cpus=spec.num_cpus,
        num_gpus=spec.num_gpus,
        max_restarts=0,
        max_concurrency=MAX_CONCURRENT_CALLS if concurrent else 1,
        runtime_env={"env_vars": _environment(spec)},
        scheduling_strategy=reservation.strategy(spec) if reservation is not None else None,
    )
    return Handle(remote.remote(build, *(host.devices for host in hosts)), spec.name)


def _environment(spec: ActorSpec) -> dict[str, str]:
    environment = {
        "PYTHONPATH": search_path(),  # custom functions and families are found where the driver finds them
        "OMP_NUM_THREADS": str(spec.num_threads),
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    if not spec.num_gpus:
        # Threads that spin while they wait take the core from the actor that they wait for.
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"}
    return environment
