"""Roles in processes of their own on a local Ray: calls, their errors and deadlines, and many of them at once."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import psutil
import pytest
from ray.exceptions import RayActorError

from tinyr1v_ray.cluster.connection import connected
from tinyr1v_ray.cluster.handle import Handle, spawn
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.config.cluster import ClusterSettings
from tinyr1v_ray.errors import DeadlineError, ModelError, RolloutError

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

TIMEOUT_S = 60.0


class Adder:
    """Adds to what it was built with."""

    def __init__(self, first: int = 0) -> None:
        self.first = first

    def add(self, number: int, *, times: int = 1) -> int:
        return self.first + number * times

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def fail(self) -> None:
        raise RolloutError("seen; rule; remedy")

    def pid(self) -> int:
        return os.getpid()


class Barrier:
    """Answers once all of its calls have come."""

    def __init__(self) -> None:
        self._waiting: list[Future[int]] = []
        self._lock = threading.Lock()

    def arrive(self, num_expected: int) -> Future[int]:
        future: Future[int] = Future()
        with self._lock:
            self._waiting.append(future)
            if len(self._waiting) == num_expected:
                for index, waiting in enumerate(self._waiting):
                    waiting.set_result(index)
        return future


@dataclass(frozen=True)
class AdderOf:
    """How an adder is built, where it is built."""

    first: int

    def __call__(self) -> Adder:
        return Adder(self.first)


@pytest.fixture(scope="module")
def adder() -> Iterator[Handle[Adder]]:
    with connected(ClusterSettings(num_cpus=2)):
        yield spawn(ActorSpec("adder", 3, 0.1, 0.0, 1), AdderOf(40))


def test_a_method_answers_and_its_own_errors_come_out(adder: Handle[Adder]) -> None:
    assert asyncio.run(adder.call(Adder.add, TIMEOUT_S, 1, times=2)) == 42
    with pytest.raises(RolloutError, match=r"^seen; rule; remedy$"):
        asyncio.run(adder.call(Adder.fail, TIMEOUT_S))


def test_a_model_that_a_role_refuses_is_said_by_its_start(adder: Handle[Adder]) -> None:
    """As an error that nothing is replaced for: the process lives."""

    def refuse() -> Adder:
        raise ModelError("seen; rule; remedy")

    refusing: Handle[Adder] = spawn(ActorSpec("adder", 5, 0.1, 0.0, 1), refuse)
    with pytest.raises(ModelError, match=r"^seen; rule; remedy$"):
        asyncio.run(refusing.started(TIMEOUT_S))
    assert asyncio.run(refusing.peak_memory_mib(TIMEOUT_S)) > 10
    refusing.kill()


def test_a_late_answer_is_named(adder: Handle[Adder]) -> None:
    with pytest.raises(DeadlineError, match=r"^adder-3\.sleep did not answer within 0\.2 s"):
        asyncio.run(adder.call(Adder.sleep, 0.2, 1.0))


def test_a_role_that_others_must_be_asked_for_is_built_later(adder: Handle[Adder]) -> None:
    later: Handle[Adder] = spawn(ActorSpec("adder", 4, 0.1, 0.0, 1), None)

    async def run() -> int:
        address, port = await later.free_endpoint(TIMEOUT_S)
        assert address and 0 < port < 65536
        await later.build(AdderOf(port), TIMEOUT_S)
        return await later.call(Adder.add, TIMEOUT_S, 1) - port

    assert asyncio.run(run()) == 1
    assert 10 < asyncio.run(later.peak_memory_mib(TIMEOUT_S)) < 4000
    later.kill()


def test_a_process_has_its_roles_name_and_one_that_is_gone_is_told_apart(adder: Handle[Adder]) -> None:
    pid = asyncio.run(adder.call(Adder.pid, TIMEOUT_S))
    assert psutil.Process(pid).cmdline()[0].startswith("ray::adder")
    adder.kill()
    with pytest.raises(RayActorError):
        asyncio.run(adder.call(Adder.pid, TIMEOUT_S))


def test_calls_of_a_concurrent_role_are_under_way_at_once(adder: Handle[Adder]) -> None:
    barrier: Handle[Barrier] = spawn(ActorSpec("barrier", 0, 0.1, 0.0, 1), Barrier, concurrent=True)

    async def run() -> list[int]:
        calls = (barrier.result(Barrier.arrive, TIMEOUT_S, 20) for _ in range(20))
        return list(await asyncio.gather(*calls))

    assert sorted(asyncio.run(run())) == list(range(20))
    barrier.kill()
