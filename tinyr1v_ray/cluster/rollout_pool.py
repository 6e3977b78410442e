"""The rollout engines as one: dispatch, and replacement of what dies.

A group goes to the engine with the least work. An engine that dies, hangs past its deadline or reports itself dead is
killed and replaced; the replacement is brought to the current weights, and whatever the old one held is issued again
with the same seeds. The loop notices nothing but the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tinyr1v_ray.cluster.engine_slot import EngineSlot, StartEngine
from tinyr1v_ray.cluster.handle import Handle, spawn
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.cluster.reservation import Reservation
from tinyr1v_ray.config.engine import EngineSettings
from tinyr1v_ray.rollout.engine import InferenceEngine, WeightSource, WeightUpdate
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.rollout.start import start_engine
from tinyr1v_ray.types import Prompt, RolloutGroup

T = TypeVar("T")
_MEMORY_TIMEOUT_S = 60.0


class RolloutPool:
    """One or more engine slots; the `ReceivingEngines` of a weight transport."""

    def __init__(self, specs: Sequence[ActorSpec], settings: EngineSettings, start: StartEngine) -> None:
        self._slots = [EngineSlot(spec, settings, start) for spec in specs]
        self.num_engines, self.num_workers_per_engine = len(specs), settings.num_workers

    async def start(self) -> None:
        """Wait until every engine answers."""
        await asyncio.gather(*(slot.started() for slot in self._slots))

    async def sample(self, prompt: Prompt, sampling: Sampling) -> RolloutGroup:
        """One group, drawn as asked, on the engine with the least work."""
        slot = min(self._slots, key=lambda slot: slot.num_prompts)
        [group] = await slot.generate([prompt], sampling)
        return group

    async def sample_share(self, index: int, prompts: list[Prompt], sampling: Sampling) -> list[RolloutGroup]:
        """Groups of prompts that engine `index` admits together."""
        return await self._slots[index].generate(prompts, sampling)

    async def connect(self, sources: Sequence[WeightSource], timeout_s: float) -> None:
        """Tell each engine, and all that will replace it, where weights come from."""
        pairs = zip(self._slots, sources, strict=True)
        await asyncio.gather(*(slot.connect(source, timeout_s) for slot, source in pairs))

    async def load_weights(self, version: int, update: WeightUpdate, timeout_s: float) -> None:
        """Make new weights live in every engine, and in all that will replace one."""
        await asyncio.gather(*(slot.load_weights(version, update, timeout_s) for slot in self._slots))

    async def sleep(self, timeout_s: float) -> None:
        """All leave their devices to others until weights come."""
        await asyncio.gather(*(slot.result(InferenceEngine.sleep, timeout_s) for slot in self._slots))

    async def score(self, prompt: Prompt, token_ids_T: np.ndarray, timeout_s: float) -> dict[str, np.ndarray]:
        """Log-probs of given tokens, by engine."""
        calls = (slot.result(InferenceEngine.score, timeout_s, prompt, token_ids_T) for slot in self._slots)
        return self._by_name(await asyncio.gather(*calls))

    def replace(self, engine: str, cause: Exception) -> None:
        """Start another engine in the place of one, with the same weights; raises when there were too many."""
        next(slot for slot in self._slots if slot.spec.name == engine).replace(cause)

    async def peak_memory_mib(self) -> dict[str, float]:
        """Largest resident memory by engine."""
        calls = (slot.peak_memory_mib(_MEMORY_TIMEOUT_S) for slot in self._slots)
        return self._by_name(await asyncio.gather(*calls))

    def loads(self) -> dict[str, dict[str, Any]]:
        """What each engine has in hand, by name."""
        return self._by_name([slot.load() for slot in self._slots])

    def kill(self) -> None:
        """End all engines."""
        for slot in self._slots:
            slot.kill()

    def _by_name(self, rows: list[T]) -> dict[str, T]:
        return {slot.spec.name: row for slot, row in zip(self._slots, rows, strict=True)}


def start_engines(
    specs: Sequence[ActorSpec],
    settings: EngineSettings,
    model_folder: Path,
    max_images: int,
    stop_ids: tuple[int, ...],
    reservation: Reservation,
    hosts: Sequence[Handle[Any]] = (),
) -> RolloutPool:
    """A pool of new engines, each in a process of its own, on what is reserved for it or for its hosts."""
    by_name = {host.name: host for host in hosts}
    build = partial(start_engine, settings, model_folder, max_images, stop_ids)

    def start(spec: ActorSpec) -> Handle[InferenceEngine]:
        return spawn(spec, build, reservation, concurrent=True, hosts=[by_name[name] for name in spec.hosts])

    return RolloutPool(specs, settings, start)
