"""Dispatch over engine slots without Ray: the deterministic batch, a hung engine and a busy one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tinyr1v_ray.cluster import rollout_pool, spawn
from tinyr1v_ray.cluster.placement import plan_placement
from tinyr1v_ray.cluster.rollout_pool import RolloutPool
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import RolloutError
from tinyr1v_ray.types import Prompt, RolloutGroup

Answer = Callable[[list[Prompt]], Awaitable[list[RolloutGroup]]]


class Method:
    """What an actor's method looks like to its caller."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self._function = function

    def remote(self, *arguments: Any) -> Awaitable[Any]:
        return self._function(*arguments)


class LocalEngine:
    """An engine in this process that answers as it is told to."""

    def __init__(self, answer: Answer) -> None:
        self.generate = Method(lambda prompts, sampling: answer(prompts))
        self.peak_memory_mib = Method(lambda: asyncio.sleep(0, 1.0))


def pool_of(monkeypatch: pytest.MonkeyPatch, answers: list[Answer], *overrides: str) -> RolloutPool:
    """A pool with one slot whose engines, the first and its replacements, answer in turn."""
    engines = [LocalEngine(answer) for answer in answers]
    monkeypatch.setattr(spawn, "spawn_rollout", lambda *_: engines.pop(0))
    monkeypatch.setattr(spawn, "kill", lambda actor: None)
    given = ["run.name=a", "data.train=[a.jsonl]", "run.num_prompts_per_step=3", *overrides]
    config = parse_settings(TrainConfig, {}, given)
    return RolloutPool(plan_placement(config).rollout, config, Path(), 1, (1,))


def prompts(count: int) -> list[Prompt]:
    return [Prompt(str(number), "math", "?", "1", (5,)) for number in range(count)]


async def at_once(batch: list[Prompt]) -> list[RolloutGroup]:
    return [RolloutGroup(prompt, ()) for prompt in batch]


def generate(pool: RolloutPool, count: int) -> list[Any]:
    async def run() -> list[Any]:
        waiting = (pool.generate(prompt) for prompt in prompts(count))
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), timeout=10)

    return asyncio.run(run())


def test_the_deterministic_mode_admits_whole_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    async def answer(batch: list[Prompt]) -> list[RolloutGroup]:
        sizes.append(len(batch))
        return await at_once(batch)

    groups = generate(pool_of(monkeypatch, [answer], "rollout.deterministic=true"), 6)
    assert [group.prompt.prompt_id for group in groups] == [str(number) for number in range(6)]
    assert sizes == [3, 3]


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_any_error_reaches_every_group_that_waits(monkeypatch: pytest.MonkeyPatch, deterministic: str) -> None:
    async def fail(batch: list[Prompt]) -> list[RolloutGroup]:
        raise OSError("the image folder is gone")

    errors = generate(pool_of(monkeypatch, [fail], f"rollout.deterministic={deterministic}"), 3)
    assert [str(error) for error in errors] == ["the image folder is gone"] * 3


def test_an_engine_that_answers_nothing_is_replaced_and_its_groups_are_sampled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(batch: list[Prompt]) -> list[RolloutGroup]:
        await asyncio.sleep(60)
        return []

    groups = generate(pool_of(monkeypatch, [hang, at_once], "rollout.group_timeout_s=1"), 3)
    assert [group.prompt.prompt_id for group in groups] == ["0", "1", "2"]


def test_an_engine_with_much_to_do_is_not_taken_for_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve groups at 0.3 s each, one after the other: the last waits for 3.6 s, the deadline is 1 s."""
    turn = asyncio.Lock()

    async def one_by_one(batch: list[Prompt]) -> list[RolloutGroup]:
        async with turn:
            await asyncio.sleep(0.3)
        return await at_once(batch)

    groups = generate(pool_of(monkeypatch, [one_by_one], "rollout.group_timeout_s=1"), 12)
    assert len(groups) == 12 and not any(isinstance(group, BaseException) for group in groups)


def test_an_engine_that_keeps_dying_ends_the_run_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(batch: list[Prompt]) -> list[RolloutGroup]:
        raise rollout_pool.EngineDiedError("engine stopped: out of memory")

    pool = pool_of(monkeypatch, [die, die], "rollout.max_restarts=1")
    [error] = generate(pool, 1)
    assert isinstance(error, RolloutError)
    assert "died 2 times" in str(error) and "out of memory" in str(error)


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_nothing_is_started_or_waited_for_after_the_end(monkeypatch: pytest.MonkeyPatch, deterministic: str) -> None:
    """The first engine dies of the end itself, as actors do; the second must not be started."""
    ended = asyncio.Event()

    async def die_at_the_end(batch: list[Prompt]) -> list[RolloutGroup]:
        await ended.wait()
        raise rollout_pool.EngineDiedError("killed")

    pool = pool_of(monkeypatch, [die_at_the_end], f"rollout.deterministic={deterministic}")
    monkeypatch.setattr(spawn, "kill", lambda actor: ended.set())

    async def run() -> list[Any]:
        waiting = [asyncio.create_task(pool.generate(prompt)) for prompt in prompts(3)]
        await asyncio.sleep(0.01)
        pool.kill()
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), timeout=10)

    kinds = {type(error) for error in asyncio.run(run())}
    assert kinds == {asyncio.CancelledError if deterministic == "true" else rollout_pool.EngineDiedError}


def test_an_engine_that_belongs_to_no_group_is_replaced_whatever_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation's engines on GPUs share nothing; only those that a learner connected to cannot be replaced."""

    async def die(batch: list[Prompt]) -> list[RolloutGroup]:
        raise rollout_pool.EngineDiedError("engine stopped")

    given = ["weights.backend=nccl", "rollout.num_gpus_per_engine=1", "learner.num_gpus_per_rank=1"]
    groups = generate(pool_of(monkeypatch, [die, at_once], *given), 1)
    assert [group.prompt.prompt_id for group in groups] == ["0"]
