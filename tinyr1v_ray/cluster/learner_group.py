"""The learner ranks as one: every call goes to all ranks at once, and one that fails ends the group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError

from tinyr1v_ray.cluster import spawn
from tinyr1v_ray.cluster.calls import finish
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import DeadlineError, LearnerDiedError
from tinyr1v_ray.types import LearnerUpdate, Prompt, TrainBatch


class LearnerGroup:
    """Port `Learner` over one or more ranks.

    Collectives bind the ranks together: when one dies the others wait for it in vain, so its death is the group's, and
    whoever owns the run starts a new group from the last checkpoint (LearnerDiedError).
    """

    def __init__(self, specs: tuple[ActorSpec, ...], config: TrainConfig, model_folder: Path) -> None:
        self._specs, self._config = specs, config
        self._actors = [spawn.spawn_learner(spec, config, model_folder) for spec in specs]

    async def start(self) -> None:
        """Load the model on every rank and join them."""
        timeout_s = self._config.learner.start_timeout_s
        await self._all("start", timeout_s, *await self._first("free_endpoint", timeout_s))

    async def update(self, batch: TrainBatch) -> LearnerUpdate:
        """Train; the batch is put into the object store once for all ranks."""
        updates = await self._all("update", self._config.learner.update_timeout_s, ray.put(batch))
        return updates[0]

    async def write_weights(self, path: Path, version: int) -> None:
        """Write the weights for the engines."""
        await self._all("write_weights", self._config.weights.timeout_s, path, version)

    async def open_transfer(self, num_engines: int) -> tuple[list[dict[str, Any]], Awaitable[Any]]:
        """What each engine must be told to join the NCCL group, and the wait for rank 0 until all have joined."""
        timeout_s = self._config.weights.timeout_s
        return await self._first("plan_transfer", timeout_s, num_engines), self._first("open_transfer", timeout_s)

    async def transfer_update_info(self) -> dict[str, Any]:
        """What each engine must be told of the tensors that come."""
        return (await self._all("transfer_update_info", self._config.weights.timeout_s))[0]

    async def send_weights(self) -> None:
        """Broadcast the weights (rank 0 sends, all take part)."""
        await self._all("send_weights", self._config.weights.timeout_s)

    async def token_logprobs(self, prompt: Prompt, token_ids_T: np.ndarray) -> np.ndarray:
        """Log-probs of given tokens under the current weights."""
        return (await self._all("token_logprobs", self._config.weights.timeout_s, prompt, token_ids_T))[0]

    async def state_bytes(self) -> int:
        """Size of what `save` writes, all ranks together."""
        return (await self._all("state_bytes", 60.0))[0]

    async def save(self, folder: Path) -> None:
        """Write the state of all ranks."""
        await self._all("save", self._config.learner.update_timeout_s, folder)

    async def restore(self, folder: Path) -> None:
        """Continue from a checkpoint."""
        await self._all("restore", self._config.learner.start_timeout_s, folder)

    async def export(self, folder: Path) -> None:
        """Write the model in Hugging Face format."""
        await self._all("export", self._config.learner.update_timeout_s, folder)

    async def peak_memory_mib(self) -> dict[str, float]:
        """Largest resident memory by rank."""
        rows = await self._all("peak_memory_mib", 60.0)
        return {spec.name: row for spec, row in zip(self._specs, rows, strict=True)}

    def kill(self) -> None:
        """End all ranks."""
        for actor in self._actors:
            spawn.kill(actor)

    async def _first(self, method: str, timeout_s: float, *arguments: Any) -> Any:
        """Result of a call to rank 0 alone."""
        name = self._specs[0].name
        try:
            return await finish(getattr(self._actors[0], method).remote(*arguments), name, method, timeout_s)
        except (RayActorError, DeadlineError) as error:
            raise _death(name, method, error) from error

    async def _all(self, method: str, timeout_s: float, *arguments: Any) -> list[Any]:
        calls = [
            asyncio.create_task(finish(getattr(actor, method).remote(*arguments), spec.name, method, timeout_s))
            for spec, actor in zip(self._specs, self._actors, strict=True)
        ]
        try:
            return list(await asyncio.gather(*calls))
        except (RayActorError, DeadlineError) as error:
            raise _death("learner", method, error) from error
        finally:
            for call in calls:
                call.cancel()


def _death(actor: str, method: str, error: Exception) -> LearnerDiedError:
    reason = " ".join(str(error).split())[:500]
    return LearnerDiedError(
        f"{actor} failed in {method}: {reason}; a rank that dies takes its group with it; the run goes on from its "
        "last checkpoint"
    )
