"""Scenarios of real learner ranks, how they are run as processes, and what each left behind."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

BUDGET = {"learner": {"micro_batch_tokens": 60}}
PAIRED = {"learner": {"num_minibatches": 2, "num_warmup_steps": 2, "learning_rate": 1e-4}}
PAIRED_ZERO3 = {"learner": {"num_minibatches": 2, "num_warmup_steps": 2, "zero_stage": 3}}
KL = {"algorithm": {"kl_coefficient": 0.3, "loss_average": "sequence", "importance_cap": 0.0}}
SHARED: list[dict[str, Any]] = [
    {"name": "zero2"},
    {"name": "zero0", "config": {"learner": {"zero_stage": 0}}},
    {"name": "zero3", "config": {"learner": {"zero_stage": 3}}},
    {"name": "budget-zero0", "config": {"learner": {"zero_stage": 0, "micro_batch_tokens": 60}}},
    {"name": "budget-zero2", "config": BUDGET},
    {"name": "budget-zero3", "config": {"learner": {"zero_stage": 3, "micro_batch_tokens": 60}}},
    {"name": "checkpointing-zero3", "config": {"learner": {"zero_stage": 3, "gradient_checkpointing": True}}},
    {"name": "paired", "config": PAIRED, "batches": "paired"},
    {"name": "paired-zero3", "config": PAIRED_ZERO3, "batches": "paired"},
    {"name": "lone-zero3", "config": {"learner": {"zero_stage": 3}}, "batches": "lone"},
    {"name": "lone", "batches": "lone"},
    {"name": "kl", "config": KL},
    {"name": "restart-zero2", "restart_after": 2},
    {"name": "restart-zero3", "config": {"learner": {"zero_stage": 3}}, "restart_after": 2},
]

COMBINATIONS = {"plain": (0, 0, 0), "kl": (1, 1, 0), "kl-paired": (1, 0, 1), "paired": (0, 1, 1)}
"""KL, checkpointing, two minibatches: of any two of them all four combinations. In float32 the names are scenarios too
("plain" is zero2), where checkpointing changes nothing."""


def low_precision(num_ranks: int) -> list[dict[str, Any]]:
    """bfloat16 scenarios: on three ranks all combinations with all ZeRO stages, else each stage and each combination.

    Shards of three ranks are padded under ZeRO 3, those of one and two are not.
    """
    scenarios = []
    for (row, name), (column, stage) in itertools.product(enumerate(COMBINATIONS), enumerate((0, 2, 3))):
        if num_ranks < 3 and (row + column + num_ranks) % 3:
            continue
        kl, checkpointing, paired = COMBINATIONS[name]
        config = {
            "model": {"dtype": "bfloat16"},
            "algorithm": KL["algorithm"] if kl else {},
            "learner": {
                **(PAIRED["learner"] if paired else {}),
                "zero_stage": stage,
                "gradient_checkpointing": bool(checkpointing),
            },
        }
        scenario = {"config": config, "batches": "paired" if paired else "mixed"}
        scenarios.append({"name": f"bfloat16-{name}-zero{stage}", **scenario})
        if name == "plain" and num_ranks == 3:
            scenarios.append({"name": f"bfloat16-restart-zero{stage}", "restart_after": 2, **scenario})
    return scenarios


ONE_RANK = [
    *SHARED,
    {"name": "checkpointing-zero2", "config": {"learner": {"gradient_checkpointing": True}}},
    {"name": "restart-zero0", "config": {"learner": {"zero_stage": 0}}, "restart_after": 2},
    {"name": "restart-paired", "config": PAIRED, "batches": "paired", "restart_after": 1},
    {"name": "kl-paired", "config": {**KL, **PAIRED}, "batches": "paired"},
    {"name": "frozen", "config": {"model": {"train_vision": False}}},
    {"name": "constant", "config": {"algorithm": {"loss_average": "constant"}}},
    {"name": "bfloat16-frozen", "config": {"model": {"dtype": "bfloat16", "train_vision": False}}},
    *low_precision(1),
    {"name": "export", "export": True},
    {"name": "errors", "errors": True},
]
TWO_RANKS = [*SHARED, *low_precision(2)]
LOW_ZERO3 = {"model": {"dtype": "bfloat16"}, "learner": {"zero_stage": 3}}
THREE_RANKS = [
    *low_precision(3),
    {"name": "bfloat16-frozen-zero3", "config": LOW_ZERO3 | {"model": {"dtype": "bfloat16", "train_vision": False}}},
    {"name": "zero3", "config": {"learner": {"zero_stage": 3}}},
    {"name": "slow-zero3", "config": {"learner": {"zero_stage": 3}}, "slow_sender_after": 2},
    {"name": "bfloat16-slow-zero3", "config": LOW_ZERO3, "slow_sender_after": 2},
    {"name": "stuck", "config": LOW_ZERO3, "stuck_at": "visual.blocks.0.norm2.weight"},  # ends the processes
]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def run_ranks(model_folder: Path, out: Path, num_ranks: int, scenarios: list[dict[str, Any]]) -> Path:
    """Run the scenarios on real ranks, each a process; their outputs lie in a folder each."""
    out.mkdir(exist_ok=True)
    job = {"model_folder": str(model_folder), "out": str(out), "num_ranks": num_ranks, "port": free_port()}
    (out / "job.json").write_text(json.dumps(job | {"scenarios": scenarios}))
    worker = Path(__file__).parent / "learner_worker.py"
    command = [sys.executable, str(worker), str(out / "job.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    logs = [(out / f"rank-{rank}.log").open("w") for rank in range(num_ranks)]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=log, stderr=subprocess.STDOUT, env=environment)
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [rank.wait(timeout=900) for rank in ranks]
    finally:
        for rank, log in zip(ranks, logs, strict=True):
            rank.kill()
            log.close()
    assert codes == [0] * num_ranks, (out / "rank-0.log").read_text()[-4000:]
    return out


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "weights.npz") as arrays:
        return dict(arrays)


def metrics(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "metrics.json").read_text())


def distance(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> float:
    assert left.keys() == right.keys()
    return max(float(np.abs(left[name] - right[name]).max()) for name in left)
