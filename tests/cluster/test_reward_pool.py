"""The scorer actors on a local Ray: a user's own function, answers that hang it, and the death of an actor."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tinyr1v_ray.cluster.connection import connected
from tinyr1v_ray.cluster.placement import plan_placement
from tinyr1v_ray.cluster.reward_pool import RewardPool
from tinyr1v_ray.config.cluster import ClusterSettings
from tinyr1v_ray.config.learner import LearnerSettings
from tinyr1v_ray.config.placement import PlacementSettings
from tinyr1v_ray.config.reward import RewardSettings
from tinyr1v_ray.config.rollout import RolloutSettings
from tinyr1v_ray.types import Completion, Finish, Prompt, RolloutGroup

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

OWN_FUNCTION = """
import time

def score(text, answer, question, domain):
    if text == "hang":
        time.sleep(60)
    return float(text == answer)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(ClusterSettings(num_cpus=2)):
        yield


@pytest.fixture
def pool(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RewardPool]:
    (tmp_path / "own_rewards.py").write_text(OWN_FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)
    settings = RewardSettings(function="own_rewards:score", item_timeout_s=2, num_scorers=2, format_weight=0)
    pool = RewardPool(
        plan_placement(RolloutSettings(), settings, LearnerSettings(), PlacementSettings()).scorer, settings
    )
    yield pool
    pool.kill()


def group(*texts: str) -> RolloutGroup:
    prompt = Prompt("p", "anything", "1+1?", "2", (5,))
    tokens, logprobs = np.array([7], np.int32), np.zeros(1, np.float32)
    return RolloutGroup(prompt, tuple(Completion(tokens, logprobs, text, Finish.STOP, 0, 0) for text in texts))


def test_a_users_function_scores_and_one_that_hangs_costs_its_item_only(pool: RewardPool) -> None:
    async def run() -> None:
        good, bad = await asyncio.gather(pool.score(group("2", "3")), pool.score(group("2", "hang", "2")))
        assert good.rewards_G.tolist() == [1.0, 0.0]
        assert bad.rewards_G.tolist() == [1.0, 0.0, 1.0]
        assert bad.usable_G.tolist() == [True, False, True]

    asyncio.run(run())


def test_a_dead_scorer_is_replaced_and_its_group_scored_again(pool: RewardPool) -> None:
    async def run() -> None:
        await asyncio.gather(pool.score(group("2")), pool.score(group("2")))  # one each, so both are up
        killed = await two_scorers()
        waiting = [asyncio.create_task(pool.score(group("hang", "2"))) for _ in range(2)]
        await asyncio.sleep(0)  # both have sent their group off
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        for scored in await asyncio.gather(*waiting):
            assert scored.usable_G.tolist() == [False, True]
        assert not killed & await two_scorers()

    asyncio.run(run())


async def two_scorers(timeout_s: float = 30) -> set[int]:
    """Process ids of the two live scorers, once there are two."""
    deadline = time.monotonic() + timeout_s
    while len(found := {child.pid for child in psutil.Process().children(recursive=True) if _is_scorer(child)}) != 2:
        assert time.monotonic() < deadline, f"{len(found)} scorers are alive"
        await asyncio.sleep(0.05)
    return found


def _is_scorer(process: psutil.Process) -> bool:
    try:
        return "ray::scorer" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
