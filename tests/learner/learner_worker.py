"""One rank of a real DeepSpeed learner, run as a process: python learner_worker.py JOB.json RANK.

The job names the base, the number of ranks, a port, an output folder and scenarios. The scenarios run one after the
other in the same process group; rank 0 writes what each of them left behind.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import learner_cases as cases
import numpy as np

from tinyr1v_ray.learner.learner import DeepSpeedLearner
from tinyr1v_ray.types import TrainBatch


def make_learner(job: dict[str, Any], scenario: dict[str, Any], rank: int) -> DeepSpeedLearner:
    config = cases.make_config(**scenario.get("config", {}))
    return DeepSpeedLearner(config, Path(job["model_folder"]), rank, job["num_ranks"], "127.0.0.1", job["port"])


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
            learner = make_learner(job, scenario, rank)
            learner.restore(out / "state")
    if scenario.get("export"):
        learner.write_weights(out / "weights.safetensors", version=3)
        learner.export(out / "export")
    group = cases.make_minibatch(Path(job["model_folder"]), 900).groups[2]
    canary_T = learner.token_logprobs(group.prompt, group.rows[0].completion.token_ids_T)
    weights = {name: tensor.float().cpu().numpy().copy() for name, tensor in learner.named_weights()}
    if rank == 0:
        np.savez(out / "weights.npz", **weights)
        np.save(out / "canary.npy", canary_T)
        (out / "metrics.json").write_text(json.dumps(metrics))


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    rank = int(sys.argv[2])
    for scenario in job["scenarios"]:
        (Path(job["out"]) / scenario["name"]).mkdir(parents=True, exist_ok=True)
        run_scenario(job, scenario, rank)


if __name__ == "__main__":
    main()
