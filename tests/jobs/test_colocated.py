"""A colocated run with the real Ray, vLLM and DeepSpeed on the CPU: the order of its events, what it computes, kills in
every phase. What changes hands on a GPU (memory, and weights by CUDA IPC) is not run here."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tinyr1v_ray.cluster.devices import SharedDevices
from tinyr1v_ray.cluster.handle import Handle
from tinyr1v_ray.cluster.rollout_pool import RolloutPool
from tinyr1v_ray.config.base import load_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.jobs.train.job import TrainRequest, run_training
from tinyr1v_ray.rollout.engine import WeightUpdate

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CONFIG = Path(__file__).parents[2] / "configs" / "miniature_ocr_cpu.yaml"
SMALL = [
    *("run.name=run", "run.num_steps=4", "run.num_prompts_per_step=4", "rollout.num_completions=4"),
    *("rollout.max_tokens=48", "rollout.deterministic=true", "evaluation.num_items=0", "checkpoint.every_n_steps=1"),
    *("telemetry.tensorboard=false", "telemetry.progress=false"),
]
VOLATILE = re.compile(r"seconds_|tokens_per_second")


def rows_of(folder: Path, *settings: str) -> dict[str, list[dict[str, Any]]]:
    """Train to the end; what the run wrote of its groups and steps."""
    config = load_settings(TrainConfig, CONFIG, [*SMALL, f"run.folder={folder}", *settings])
    run_training(TrainRequest(config))
    names = ("groups", "metrics")
    return {name: [json.loads(line) for line in (folder / f"run/{name}.jsonl").open()] for name in names}


def kill(role: str) -> None:
    """SIGKILL to the actor of a role."""
    processes = psutil.Process().children(recursive=True)
    [actor] = [process for process in processes if " ".join(process.cmdline()).startswith(f"ray::{role}")]
    os.kill(actor.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Bereaved:
    """A colocated run that lost its engine asleep (step 2), its learner while the engine slept (step 3), and its engine
    as weights arrived (step 4). `calls` are the names of what actors were asked, `said` what was logged."""

    rows: dict[str, list[dict[str, Any]]]
    calls: list[str]
    said: str


@pytest.fixture(scope="module")
def bereaved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bereaved]:
    calls: list[str] = []
    killed: set[str] = set()
    submit, to_learner, load_weights = Handle.submit, SharedDevices.to_learner, RolloutPool.load_weights

    def noting(self: Handle[Any], method: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(method.__name__)
        return submit(self, method, *args, **kwargs)

    async def sleep_and_die(self: SharedDevices) -> None:
        await to_learner(self)
        num_updates = calls.count("update")
        if num_updates in (1, 2) and (role := {1: "rollout", 2: "learner"}[num_updates]) not in killed:
            killed.add(role)
            kill(role)

    async def load_and_die(self: RolloutPool, version: int, update: WeightUpdate, timeout_s: float) -> None:
        loading = asyncio.ensure_future(load_weights(self, version, update, timeout_s))
        if version == 4:
            await asyncio.sleep(0.02)
            kill("rollout")
        await loading

    said: list[str] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger = logging.getLogger("tinyr1v_ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handle, "submit", noting)
        patch.setattr(SharedDevices, "to_learner", sleep_and_die)
        patch.setattr(RolloutPool, "load_weights", load_and_die)
        logger.addHandler(handler := Notes())
        try:
            rows = rows_of(tmp_path_factory.mktemp("colocated"), "placement.colocate=true")
        finally:
            logger.removeHandler(handler)
    yield Bereaved(rows, calls, "\n".join(said))


def test_a_step_goes_generate_sleep_learn_free_transfer(bereaved: Bereaved) -> None:
    """The wakes are within `load_weights`: see the engine's own test."""
    calls = bereaved.calls
    first = ["sleep", "connect", "free_memory", "with_weights", "load_weights", "generate", "token_logprobs", "score"]
    assert calls[: len(first)] == first  # version 0, and the canary's own tokens
    step = calls[len(first) :]
    expected = ["sleep", "update", "free_memory", "with_weights", "load_weights", "token_logprobs", "score"]
    asked = [name for name in step if name in expected]
    assert asked[: len(expected)] == expected


def test_it_survives_a_kill_in_each_phase(bereaved: Bereaved) -> None:
    assert bereaved.said.count("rollout-0 is replaced") == 2
    assert bereaved.said.count("attempt 1 ended") == 1 and "attempt 2" not in bereaved.said
    assert [row["step"] for row in bereaved.rows["metrics"]] == [1, 2, 3, 4]
    assert all(row["seconds_switch"] > 0 for row in bereaved.rows["metrics"])


def test_it_computes_what_engines_and_learner_apart_compute(bereaved: Bereaved, tmp_path: Path) -> None:
    """Prompts, rewards, lengths, advantages and metrics, whatever was killed on the way."""
    apart = rows_of(tmp_path)
    assert bereaved.rows["groups"] == apart["groups"]

    def repeatable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if not VOLATILE.match(name)} for row in rows]

    assert repeatable(bereaved.rows["metrics"]) == repeatable(apart["metrics"])
    assert any(row["grad_norm"] > 0 for row in apart["metrics"])
    assert not any("seconds_switch" in row for row in apart["metrics"])
