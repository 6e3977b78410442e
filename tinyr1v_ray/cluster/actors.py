"""What runs inside the Ray actors: thin, plain classes around an engine, a scorer and a learner rank.

Each imports its heavy library in its constructor, in the process that needs it: the driver, which only spawns them,
starts without vLLM and DeepSpeed.
"""

from __future__ import annotations

import asyncio
import collections
import socket
from pathlib import Path
from typing import Any

import numpy as np
import ray

from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import LearnerUpdate, Prompt, RolloutGroup, ScoredGroup, TrainBatch


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far; what its parent had before does not count, as in ru_maxrss."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def free_endpoint() -> tuple[str, int]:
    """Address of this node, as the other nodes see it, and a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), probe.getsockname()[1]


class RolloutActor:
    """One vLLM engine. All methods are coroutines, so that many groups are sampled at once."""

    def __init__(self, config: TrainConfig, model_folder: Path, max_images: int, stop_ids: tuple[int, ...]) -> None:
        from tinyr1v_ray.rollout.engine import VllmEngine

        self._engine = VllmEngine(config, model_folder, max_images, stop_ids)

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[RolloutGroup]:
        """The groups of prompts that are admitted together."""
        futures = self._engine.submit(prompts, sampling)
        return list(await asyncio.gather(*(asyncio.wrap_future(future) for future in futures)))

    async def score(self, prompt: Prompt, token_ids_T: np.ndarray) -> np.ndarray:
        """Log-probs of given tokens under the current weights."""
        return await asyncio.wrap_future(self._engine.score(prompt, token_ids_T))

    async def init_weight_transfer(self, init_info: dict[str, Any]) -> None:
        """Connect to the learner."""
        await asyncio.wrap_future(self._engine.init_weight_transfer(init_info))

    async def load_weights(self, version: int, update_info: dict[str, Any]) -> None:
        """Make new weights live."""
        await asyncio.wrap_future(self._engine.load_weights(version, update_info))

    async def peak_memory_mib(self) -> float:
        """Largest resident memory of the actor's process."""
        return peak_memory_mib()


class ScorerActor:
    """Scores groups in a child process that can be killed."""

    def __init__(self, config: TrainConfig) -> None:
        from tinyr1v_ray.rewards.isolation import ScoringProcess

        self._process = ScoringProcess(config.reward)

    def score(self, group: RolloutGroup) -> ScoredGroup:
        """One score per completion."""
        return self._process.score_group(group)

    def peak_memory_mib(self) -> float:
        """Largest resident memory of the actor's process."""
        return peak_memory_mib()


class LearnerActor:
    """One rank of the learner. `start` comes first; then every rank gets the same calls in the same order."""

    def __init__(self, config: TrainConfig, model_folder: Path, rank: int) -> None:
        self._config, self._model_folder, self._rank = config, model_folder, rank

    def free_endpoint(self) -> tuple[str, int]:
        """Address of this node and a free port, for rank 0."""
        return free_endpoint()

    def start(self, master_address: str, master_port: int) -> None:
        """Load the model and join the group."""
        from tinyr1v_ray.learner.learner import DeepSpeedLearner

        num_ranks = self._config.learner.num_ranks
        self._learner = DeepSpeedLearner(
            self._config, self._model_folder, self._rank, num_ranks, master_address, master_port
        )

    def update(self, batch: TrainBatch) -> LearnerUpdate:
        """Train on this rank's share of a batch."""
        return self._learner.update(batch)

    def write_weights(self, path: Path, version: int) -> None:
        """Write the weights for the engines (rank 0 writes, all take part)."""
        self._learner.write_weights(path, version)

    def plan_transfer(self, num_engines: int) -> list[dict[str, Any]]:
        """Choose where the NCCL group meets; what each engine must be told of it (rank 0)."""
        from tinyr1v_ray.rollout.nccl_sender import TransferGroup

        workers = max(1, int(self._config.rollout.num_gpus_per_engine))
        self._transfer_group = TransferGroup(*free_endpoint(), num_engines, workers)
        return [self._transfer_group.init_info(index) for index in range(num_engines)]

    def open_transfer(self) -> None:
        """Join the group as its rank 0; waits for the engines."""
        from tinyr1v_ray.rollout.nccl_sender import NcclSender

        self._sender = NcclSender(self._transfer_group)

    def transfer_update_info(self) -> dict[str, Any]:
        """Names and shapes of the tensors, in the order of `send_weights`."""
        from tinyr1v_ray.rollout.nccl_sender import update_info

        shapes = ((name, tensor.shape) for name, tensor in self._learner.named_weights())
        return update_info(shapes, self._config.model.dtype)

    def send_weights(self) -> None:
        """Broadcast the weights; the other ranks only take part in gathering them."""
        if self._rank == 0:
            self._sender.send(self._learner.named_weights(), self._config.model.dtype)
        else:
            collections.deque(self._learner.named_weights(), maxlen=0)

    def token_logprobs(self, prompt: Prompt, token_ids_T: np.ndarray) -> np.ndarray:
        """Log-probs of given tokens under the current weights."""
        return self._learner.token_logprobs(prompt, token_ids_T)

    def state_bytes(self) -> int:
        """Size of a checkpoint, all ranks together."""
        return self._learner.state_bytes()

    def save(self, folder: Path) -> None:
        """Write this rank's part of a checkpoint."""
        self._learner.save(folder)

    def restore(self, folder: Path) -> None:
        """Continue from a checkpoint."""
        self._learner.restore(folder)

    def export(self, folder: Path) -> None:
        """Write the model in Hugging Face format."""
        self._learner.export(folder)

    def peak_memory_mib(self) -> float:
        """Largest resident memory of the actor's process."""
        return peak_memory_mib()
