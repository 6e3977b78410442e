"""A real DeepSpeed learner in a process of its own, where vLLM has not taken over torch's threads and process group.

Functions for a pool of one process; one learner is alive at a time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.learner.learner import DeepSpeedLearner
from tinyr1v_ray.types import Prompt, TrainBatch

_alive: dict[str, DeepSpeedLearner] = {}


def start(config: TrainConfig, folder: Path, port: int) -> None:
    """Begin to train the model in a folder."""
    import torch

    from tinyr1v_ray.jobs.train.components import objective_of
    from tinyr1v_ray.learner.rank import Membership

    torch.set_num_threads(1)
    os.environ["DS_ACCELERATOR"] = "cpu"
    membership = Membership(0, 1, "127.0.0.1", port)
    _alive["learner"] = DeepSpeedLearner(config.learner, config.model, objective_of(config), folder, membership)


def update(batch: TrainBatch) -> dict[str, float]:
    """Metrics of an update."""
    return dict(_alive["learner"].update(batch).metrics)


def logprobs(asked: list[tuple[Prompt, np.ndarray]]) -> list[np.ndarray]:
    """Log-probs of given completions."""
    return [_alive["learner"].token_logprobs(prompt, token_ids_T) for prompt, token_ids_T in asked]


def write_weights(path: Path) -> None:
    """What a transport sends."""
    metadata: dict[str, Any] = {"format": "pt"}
    _alive["learner"].with_weights(lambda weights: weights.write(path, metadata), 60.0)


def export(folder: Path) -> None:
    """The specialist as a folder."""
    _alive["learner"].export(folder)
