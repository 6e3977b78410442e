"""Waits that have a deadline, the cause of a death, and how many deaths a run outlives. Without Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from ray.exceptions import RayTaskError

from tinyr1v_ray.cluster.calls import finish, first_cause
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import DeadlineError, LearnerDiedError, PlacementError, RolloutError
from tinyr1v_ray.jobs.train import job as training
from tinyr1v_ray.jobs.train.inputs import RunInputs
from tinyr1v_ray.jobs.train.job import TrainRequest, train_specialist
from tinyr1v_ray.telemetry.display import Display


async def raising(error: BaseException) -> None:
    raise error


def called(answer: Any, timeout_s: float | None = 5.0) -> Any:
    """What waiting for an actor's answer gives, the answer being a coroutine of this process."""
    return asyncio.run(finish(answer, "rollout-1", "generate", timeout_s))


def test_a_deadline_names_actor_and_call_and_what_to_do() -> None:
    with pytest.raises(DeadlineError, match=r"^rollout-1\.generate did not answer within 0\.01 s; .*raise the timeout"):
        called(asyncio.sleep(60), 0.01)
    assert called(asyncio.sleep(0.01, "answer"), None) == "answer"


def test_errors_of_ours_and_of_the_system_come_out_of_rays() -> None:
    for error in (RolloutError("seen; rule; remedy"), OSError(28, "No space left on device")):
        with pytest.raises(type(error)) as caught:
            called(raising(RayTaskError("generate", "traceback", error)))
        assert caught.value is error
    with pytest.raises(RayTaskError):
        called(raising(RayTaskError("generate", "traceback", ZeroDivisionError())))


def test_the_first_cause_is_a_death_else_what_was_raised_first() -> None:
    died, first, second = LearnerDiedError("gone"), ValueError("first"), OSError("second")
    assert first_cause(BaseExceptionGroup("", [first, ExceptionGroup("", [second, died])])) is died
    assert first_cause(BaseExceptionGroup("", [ExceptionGroup("", [first]), second])) is first


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The attempts of a run whose learner dies in each of them, on a cluster with room for it."""
    made: list[int] = []

    def dies(*_: object) -> None:
        made.append(len(made) + 1)
        raise LearnerDiedError(f"rank 0 is gone, attempt {made[-1]}")

    monkeypatch.setattr(training, "started", dies)
    monkeypatch.setattr(training, "check_room", lambda *_: None)
    monkeypatch.setattr(training, "free_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(training, "num_nodes", lambda: 1)
    return made


def train(folder: Path, *overrides: str) -> None:
    given = ["run.name=a", f"run.folder={folder}", "data.train=[a.jsonl]", *overrides]
    request = TrainRequest(parse_settings(TrainConfig, {}, given))
    asyncio.run(train_specialist(request, cast(RunInputs, None), Display(quiet=True)))


@pytest.mark.parametrize("max_restarts", [0, 2])
def test_a_learner_that_keeps_dying_ends_the_run_with_its_last_death(
    attempts: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture, max_restarts: int
) -> None:
    with pytest.raises(LearnerDiedError, match=f"attempt {max_restarts + 1}"):
        train(tmp_path, f"learner.max_restarts={max_restarts}")
    assert attempts == list(range(1, max_restarts + 2))
    ends = [f"attempt {number} ended: rank 0 is gone, attempt {number}" for number in attempts[:-1]]
    assert [record.getMessage() for record in caplog.records if "ended" in record.getMessage()] == ends


def test_weights_in_one_nodes_memory_are_refused_on_several_before_anything_is_made(
    attempts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "num_nodes", lambda: 2)
    with pytest.raises(PlacementError, match=r"weights\.folder /dev/shm is the memory of one node, the cluster has 2"):
        train(tmp_path)
    assert not attempts and not list(tmp_path.iterdir())
    with pytest.raises(LearnerDiedError):
        train(tmp_path, f"weights.folder={tmp_path}", "learner.max_restarts=0")
