"""Dispatch over engine slots without Ray: the deterministic batch, a hung engine and a busy one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import numpy as np
import pytest

from tinyr1v_ray.cluster.handle import Handle
from tinyr1v_ray.cluster.placement import plan_engines
from tinyr1v_ray.cluster.rollout_pool import RolloutPool
from tinyr1v_ray.config.engine import EvaluationEngines
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.errors import EngineDiedError, EngineLostError, RolloutError, WeightSyncError
from tinyr1v_ray.jobs.train.rollouts import TrainingRollouts
from tinyr1v_ray.rollout.engine import InferenceEngine, WeightSource, WeightUpdate
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import Prompt, RolloutGroup

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Answer = Callable[[list[Prompt]], Awaitable[list[RolloutGroup]]]


class LocalEngine:
    """An engine in this process that answers as it is told to, and how it is talked to."""

    def __init__(self, answer: Answer, on_kill: Callable[[], None] = lambda: None) -> None:
        self._answer, self.kill = answer, on_kill
        self.told: list[Any] = []

    async def started(self, timeout_s: float) -> None:
        await asyncio.sleep(0)

    async def result(self, method: Callable[..., Any], timeout_s: float | None, *args: Any) -> Any:
        if method is InferenceEngine.generate:
            return await self._answer(args[0])
        self.told.append(args)
        return None


def pool_of(engines: list[LocalEngine], timeout_s: float = 600.0, max_restarts: int = 3) -> RolloutPool:
    """A pool with one slot, which the engines fill in turn."""
    section = EvaluationEngines(item_timeout_s=timeout_s, max_restarts=max_restarts)
    left = iter(engines)
    return RolloutPool(
        plan_engines(section).rollout,
        section.engine_settings(ModelSettings(), seed=0),
        lambda spec: cast(Handle[InferenceEngine], next(left)),
    )


def rollouts_of(
    answers: list[Answer], deterministic: bool = False, timeout_s: float = 600.0, max_restarts: int = 3
) -> TrainingRollouts:
    """Rollouts in steps of three groups, on engines that answer in turn."""
    pool = pool_of([LocalEngine(answer) for answer in answers], timeout_s, max_restarts)
    return TrainingRollouts(pool, Sampling(2, 1.0, 1.0, 8, 0), 3 if deterministic else None)


def prompts(count: int) -> list[Prompt]:
    return [Prompt(str(number), "math", "?", "1", (5,)) for number in range(count)]


async def at_once(batch: list[Prompt]) -> list[RolloutGroup]:
    return [RolloutGroup(prompt, ()) for prompt in batch]


def generate(rollouts: TrainingRollouts, count: int) -> list[Any]:
    async def run() -> list[Any]:
        waiting = (rollouts.generate(prompt) for prompt in prompts(count))
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), timeout=10)

    return asyncio.run(run())


def test_the_deterministic_mode_admits_whole_steps() -> None:
    sizes = []

    async def answer(batch: list[Prompt]) -> list[RolloutGroup]:
        sizes.append(len(batch))
        return await at_once(batch)

    groups = generate(rollouts_of([answer], deterministic=True), 6)
    assert [group.prompt.prompt_id for group in groups] == [str(number) for number in range(6)]
    assert sizes == [3, 3]


@pytest.mark.parametrize("deterministic", [True, False])
def test_any_error_reaches_every_group_that_waits(deterministic: bool) -> None:
    async def fail(batch: list[Prompt]) -> list[RolloutGroup]:
        raise OSError("the image folder is gone")

    errors = generate(rollouts_of([fail], deterministic), 3)
    assert [str(error) for error in errors] == ["the image folder is gone"] * 3


def test_an_engine_that_answers_nothing_is_replaced_and_its_groups_are_sampled_again() -> None:
    async def hang(batch: list[Prompt]) -> list[RolloutGroup]:
        await asyncio.sleep(60)
        return []

    groups = generate(rollouts_of([hang, at_once], timeout_s=1), 3)
    assert [group.prompt.prompt_id for group in groups] == ["0", "1", "2"]


def test_an_engine_with_much_to_do_is_not_taken_for_hung() -> None:
    """Twelve groups at 0.3 s each, one after the other: the last waits for 3.6 s, the deadline is 1 s."""
    turn = asyncio.Lock()

    async def one_by_one(batch: list[Prompt]) -> list[RolloutGroup]:
        async with turn:
            await asyncio.sleep(0.3)
        return await at_once(batch)

    groups = generate(rollouts_of([one_by_one], timeout_s=1), 12)
    assert len(groups) == 12 and not any(isinstance(group, BaseException) for group in groups)


def test_what_an_engine_has_in_hand_is_told_until_it_is_answered() -> None:
    """Of a prompt that is not trained on, an evaluation's, there is no position."""
    seen = []

    async def answer(batch: list[Prompt]) -> list[RolloutGroup]:
        seen.append(pool.loads())
        return [RolloutGroup(prompt, ()) for prompt in batch]

    pool = pool_of([LocalEngine(die), LocalEngine(answer)])
    trained, evaluated = Prompt("a", "math", "?", "1", (5,), position=7), Prompt("b", "math", "?", "1", (5,))
    asyncio.run(pool.sample_share(0, [trained, evaluated], Sampling(2, 1.0, 1.0, 8, 0)))
    assert seen == [{"rollout-0": {"num_groups": 2, "positions": [7], "num_restarts": 1, "is_up": True}}]
    assert pool.loads()["rollout-0"]["num_groups"] == 0


async def die(batch: list[Prompt]) -> list[RolloutGroup]:
    raise EngineDiedError("engine stopped: out of memory")


def test_an_engine_that_keeps_dying_ends_the_run_with_the_cause() -> None:
    [error] = generate(rollouts_of([die, die], max_restarts=1), 1)
    assert isinstance(error, RolloutError)
    assert "died 2 times" in str(error) and "out of memory" in str(error)


@pytest.mark.parametrize("deterministic", [True, False])
def test_nothing_is_started_or_waited_for_after_the_end(deterministic: bool) -> None:
    """The first engine dies of the end itself, as actors do; the second must not be started."""
    ended = asyncio.Event()

    async def die_at_the_end(batch: list[Prompt]) -> list[RolloutGroup]:
        await ended.wait()
        raise EngineDiedError("killed")

    pool = pool_of([LocalEngine(die_at_the_end, on_kill=ended.set)])
    rollouts = TrainingRollouts(pool, Sampling(2, 1.0, 1.0, 8, 0), 3 if deterministic else None)

    async def run() -> list[Any]:
        waiting = [asyncio.create_task(rollouts.generate(prompt)) for prompt in prompts(3)]
        await asyncio.sleep(0.01)
        rollouts.close()
        pool.kill()
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), timeout=10)

    kinds = {type(error) for error in asyncio.run(run())}
    assert kinds == {asyncio.CancelledError if deterministic else EngineDiedError}


class FixedGroup(WeightSource):
    """A source whose members are fixed, as an NCCL group's are."""

    admits_replacements = False


def test_a_replacement_is_told_where_weights_come_from_and_loads_the_version_that_is_live() -> None:
    engines = [LocalEngine(die), LocalEngine(at_once)]
    pool, source, update = pool_of(engines), WeightSource(), WeightUpdate()

    async def run() -> RolloutGroup:
        await pool.connect([source], 5.0)
        for version in (3, 4):
            await pool.load_weights(version, update, 5.0)
        return await pool.sample(prompts(1)[0], Sampling(2, 1.0, 1.0, 8, 0))

    assert asyncio.run(run()).prompt.prompt_id == "0"
    assert [engine.told for engine in engines] == [[(source,), (3, update), (4, update)], [(source,), (4, update)]]


def test_an_engine_may_be_replaced_for_what_it_answers() -> None:
    """The next call goes to the new one, which was told the same; one too many ends the run with the cause."""
    engines = [LocalEngine(at_once), LocalEngine(at_once)]
    pool, source, update = pool_of(engines, max_restarts=1), WeightSource(), WeightUpdate()

    async def run() -> None:
        await pool.connect([source], 5.0)
        await pool.load_weights(3, update, 5.0)
        pool.replace("rollout-0", WeightSyncError("it differs"))
        await pool.score(prompts(1)[0], np.array([7]), 5.0)
        pool.replace("rollout-0", WeightSyncError("it still differs"))

    with pytest.raises(RolloutError, match="it still differs; max_restarts allows 1 "):
        asyncio.run(run())
    assert engines[0].told == [(source,), (3, update)]
    assert engines[1].told[:2] == engines[0].told and len(engines[1].told) == 3


def test_an_engine_of_a_group_that_takes_no_new_member_ends_the_attempt() -> None:
    pool = pool_of([LocalEngine(die), LocalEngine(at_once)])

    async def run() -> None:
        await pool.connect([FixedGroup()], 5.0)
        await pool.sample(prompts(1)[0], Sampling(2, 1.0, 1.0, 8, 0))

    with pytest.raises(EngineLostError, match=r"rollout-0 died: .*out of memory; .* cannot take a new member"):
        asyncio.run(run())
