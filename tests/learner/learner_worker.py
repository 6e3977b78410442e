"""One rank of a real DeepSpeed learner, run as a process: python learner_worker.py JOB.json RANK.

The job names the base, the number of ranks, a port, an output folder and scenarios. The scenarios run one after the
other in the same process group; rank 0 writes what each of them left behind.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import learner_cases as cases
import numpy as np

from tinyr1v_ray.errors import DeadlineError, TinyR1VError
from tinyr1v_ray.jobs.train.components import objective_of
from tinyr1v_ray.learner.learner import DeepSpeedLearner
from tinyr1v_ray.learner.rank import Membership, PublishedWeights
from tinyr1v_ray.types import TrainBatch

TIMEOUT_S = 120.0


def make_learner(job: dict[str, Any], scenario: dict[str, Any], rank: int) -> DeepSpeedLearner:
    config = cases.make_config(**scenario.get("config", {}))
    membership = Membership(rank, job["num_ranks"], "127.0.0.1", job["port"])
    return DeepSpeedLearner(config.learner, config.model, objective_of(config), Path(job["model_folder"]), membership)


def write_weights(learner: DeepSpeedLearner, path: Path) -> None:
    learner.with_weights(lambda weights: weights.write(path, {"format": "pt", "version": "3"}), TIMEOUT_S)


def batches(job: dict[str, Any], scenario: dict[str, Any]) -> list[TrainBatch]:
    return cases.SCENARIO_BATCHES[scenario.get("batches", "mixed")](Path(job["model_folder"]))


def run_scenario(job: dict[str, Any], scenario: dict[str, Any], rank: int) -> None:
    out = Path(job["out"]) / scenario["name"]
    learner = make_learner(job, scenario, rank)
    metrics = []
    for batch in batches(job, scenario):
        metrics.append(dict(learner.update(batch).metrics))
        if scenario.get("restart_after") == batch.step:
            learner.save(out / "state")
            (out / "state_bytes.json").write_text(str(learner.state_bytes()))
            learner = make_learner(job, scenario, rank)
            learner.restore(out / "state")
        if scenario.get("slow_sender_after") == batch.step:
            times = learner.with_weights(SlowSender(), TIMEOUT_S)
            (out / f"times-{rank}.json").write_text(json.dumps(times))
    if scenario.get("export"):
        write_weights(learner, out / "weights.safetensors")
        learner.export(out / "export")
    group = cases.make_minibatch(Path(job["model_folder"]), 900).groups[2]
    canary_T = learner.token_logprobs(group.prompt, group.rows[0].completion.token_ids_T)
    weights = learner.with_weights(
        lambda weights: {name: tensor.float().cpu().numpy().copy() for name, tensor in weights}, TIMEOUT_S
    )
    if rank == 0:
        np.savez(out / "weights.npz", **weights)
        np.save(out / "canary.npy", canary_T)
        (out / "metrics.json").write_text(json.dumps(metrics))


class SlowSender:
    """A first rank that takes its time over each tensor, while the others only take part in gathering.

    Returns for each tensor when it was asked for and when it was there (seconds, of a clock that all processes share).
    """

    def __init__(self, stuck_at: str = "") -> None:
        self.stuck_at = stuck_at

    def __call__(self, weights: PublishedWeights) -> list[tuple[str, float, float]]:
        times = []
        tensors = iter(weights)
        asked = time.monotonic()
        for name, tensor in tensors:
            times.append((name, asked, time.monotonic()))
            if weights.is_first:
                time.sleep(1000 if name == self.stuck_at else 0.01)
                assert bool(tensor.isfinite().all())  # still whole
            asked = time.monotonic()
        return times


def run_stuck(job: dict[str, Any], scenario: dict[str, Any], rank: int) -> None:
    """A first rank that never gets done with a tensor; each rank's own words are written down. Ends the process."""
    learner = make_learner(job, scenario, rank)
    try:
        learner.with_weights(SlowSender(stuck_at=scenario["stuck_at"]), 5.0)
    except DeadlineError as error:
        (Path(job["out"]) / scenario["name"] / f"rank-{rank}.txt").write_text(str(error))
    time.sleep(3.0)  # a rank that leaves early would wake the others
    os._exit(0)


def run_errors(job: dict[str, Any], scenario: dict[str, Any], rank: int) -> None:
    """What goes wrong on purpose, one after the other; the messages are written down."""
    out = Path(job["out"]) / scenario["name"]
    learner = make_learner(job, scenario, rank)
    batch = batches(job, scenario)[0]
    messages = {}

    def attempt(name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except TinyR1VError as error:
            messages[name] = [type(error).__name__, str(error)]

    attempt("no state", lambda: learner.restore(out))
    learner.save(out / "zero2")
    other = make_learner(job, {"config": {"learner": {"zero_stage": 3}}}, rank)
    attempt("other stage", lambda: other.restore(out / "zero2"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # stands for a disk that takes no more
    attempt("full disk", lambda: learner.save(out / "full"))
    attempt("full disk, weights", lambda: write_weights(learner, out / "full.safetensors"))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    minibatch = batch.minibatches[0]
    group = minibatch.groups[0]
    broken = replace(group.rows[0].completion, logprobs_T=group.rows[0].completion.logprobs_T * np.nan)
    broken_group = replace(group, rows=(replace(group.rows[0], completion=broken), *group.rows[1:]))
    bad_batch = TrainBatch(1, (replace(minibatch, groups=(broken_group, *minibatch.groups[1:])),))
    attempt("not finite", lambda: learner.update(bad_batch))
    (out / "messages.json").write_text(json.dumps(messages))


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    rank = int(sys.argv[2])
    for scenario in job["scenarios"]:
        (Path(job["out"]) / scenario["name"]).mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        run = run_stuck if "stuck_at" in scenario else run_errors if scenario.get("errors") else run_scenario
        run(job, scenario, rank)
        print(f"{scenario['name']}: {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
