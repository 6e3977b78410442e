"""The one place where plain classes become Ray actors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from tinyr1v_ray.cluster.actors import LearnerActor, RolloutActor, ScorerActor
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.config.own_function import search_path
from tinyr1v_ray.config.train import TrainConfig

MAX_CONCURRENT_CALLS = 10_000
"""Groups that an engine may hold at once: the window bounds them, not Ray."""


def spawn_rollout(
    spec: ActorSpec, config: TrainConfig, model_folder: Path, max_images: int, stop_ids: tuple[int, ...]
) -> ActorHandle:
    """A rollout engine. Ray does not restart it: the pool must first bring a replacement to the current weights."""
    return _spawn(RolloutActor, spec, MAX_CONCURRENT_CALLS, config, model_folder, max_images, stop_ids)


def spawn_scorer(spec: ActorSpec, config: TrainConfig) -> ActorHandle:
    """A scorer; it holds no state, the pool replaces it."""
    return _spawn(ScorerActor, spec, 1, config)


def spawn_learner(spec: ActorSpec, config: TrainConfig, model_folder: Path) -> ActorHandle:
    """A learner rank; one that dies takes the group with it, which restarts from a checkpoint."""
    return _spawn(LearnerActor, spec, 1, config, model_folder, spec.index)


def kill(actor: ActorHandle) -> None:
    """End an actor at once; one that is gone already is fine."""
    ray.kill(actor, no_restart=True)


def _spawn(plain: type, spec: ActorSpec, max_concurrency: int, *arguments: Any) -> ActorHandle:
    environment = {
        "PYTHONPATH": search_path(),  # a user's own functions and families are found where the driver finds them
        "OMP_NUM_THREADS": str(spec.num_threads),
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    if not spec.num_gpus:
        # Threads that spin while they wait take the core from the actor that they wait for.
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"}
    remote = ray.remote(plain).options(
        num_cpus=spec.num_cpus,
        num_gpus=spec.num_gpus,
        max_restarts=0,
        max_concurrency=max_concurrency,
        runtime_env={"env_vars": environment},
    )
    return remote.remote(*arguments)
