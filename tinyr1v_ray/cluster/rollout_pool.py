"""The rollout engines as one: dispatch, and replacement of what dies.

A group goes to the engine with the least work. An engine that dies, hangs past its deadline or reports itself dead is
killed and replaced; the replacement is brought to the current weights, and whatever the old one held is issued again
with the same seeds. The loop notices nothing but the time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from tinyr1v_ray.cluster import spawn
from tinyr1v_ray.cluster.calls import finish
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import DeadlineError, EngineDiedError, RolloutError
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import Prompt, RolloutGroup

_DEATHS = (RayActorError, DeadlineError, EngineDiedError)
logger = logging.getLogger(__name__)


class EngineSlot:
    """One place for an engine: the actor that fills it now, and the weights that it must hold."""

    def __init__(self, spec: ActorSpec, config: TrainConfig, start: Callable[[], ActorHandle]) -> None:
        self.spec, self._config, self._start = spec, config, start
        self._actor = start()
        self._ready: asyncio.Task[None] | None = None
        self._init_info: dict[str, Any] | None = None
        self._weights: tuple[int, dict[str, Any]] | None = None
        self._num_restarts = 0
        self._is_ended = False
        self._last_answer_s = 0.0
        self.num_prompts = 0

    async def call(self, method: str, timeout_s: float, *arguments: Any) -> Any:
        """Result of an engine's method, asked of a replacement as often as the engine dies.

        Raises RolloutError when it died more often than `rollout.max_restarts`.
        """
        while True:
            actor = await self._live_actor()
            try:
                return await finish(getattr(actor, method).remote(*arguments), self.spec.name, method, timeout_s)
            except _DEATHS as error:
                self._replace(actor, error)

    async def connect(self, init_info: dict[str, Any]) -> None:
        """Connect this engine, and all that will replace it, to the learner."""
        self._init_info = init_info
        await self.call("init_weight_transfer", self._config.weights.timeout_s, init_info)

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[RolloutGroup]:
        """Groups of prompts that are admitted together.

        An engine with much to do is not a hung one: its deadline, `rollout.group_timeout_s` a prompt, runs from the
        last group that it answered, or from the request.
        """
        self.num_prompts += len(prompts)
        try:
            while True:
                actor = await self._live_actor()
                try:
                    return await self._answer(actor.generate.remote(prompts, sampling), len(prompts))
                except _DEATHS as error:
                    self._replace(actor, error)
        finally:
            self.num_prompts -= len(prompts)

    async def _answer(self, reference: ray.ObjectRef, num_prompts: int) -> list[RolloutGroup]:
        asked_s, patience_s = time.monotonic(), self._config.rollout.group_timeout_s * num_prompts
        answer = asyncio.ensure_future(finish(reference, self.spec.name, "generate", None))
        try:
            while not answer.done():
                left_s = max(asked_s, self._last_answer_s) + patience_s - time.monotonic()
                if left_s <= 0:
                    raise DeadlineError(
                        f"{self.spec.name} answered nothing for {patience_s:g} s; a group's time is limited; see the "
                        "engine's log, or raise rollout.group_timeout_s (of an evaluation: engine.item_timeout_s)"
                    )
                await asyncio.wait({answer}, timeout=left_s)
        finally:
            answer.cancel()
        self._last_answer_s = time.monotonic()
        return answer.result()

    async def load_weights(self, version: int, update_info: dict[str, Any]) -> None:
        """Make weights live in this engine and in all that will replace it."""
        self._weights = (version, update_info)
        await self.call("load_weights", self._config.weights.timeout_s, version, update_info)

    def kill(self) -> None:
        """End the engine; no other takes its place."""
        self._is_ended = True
        if self._ready is not None:
            self._ready.cancel()
        spawn.kill(self._actor)

    async def _live_actor(self) -> ActorHandle:
        if self._ready is None:
            self._ready = asyncio.create_task(self._bring_up(self._actor), name=f"bring up {self.spec.name}")
        ready, actor = self._ready, self._actor
        try:
            await asyncio.shield(ready)
        except _DEATHS as error:
            self._replace(actor, error)
            return await self._live_actor()
        return self._actor

    async def _bring_up(self, actor: ActorHandle) -> None:
        timeout_s = self._config.rollout.start_timeout_s
        await finish(actor.peak_memory_mib.remote(), self.spec.name, "start", timeout_s)
        if self._num_restarts == 0:
            return
        if self._init_info is not None:
            await finish(actor.init_weight_transfer.remote(self._init_info), self.spec.name, "connect", timeout_s)
        if self._weights is not None:
            await finish(actor.load_weights.remote(*self._weights), self.spec.name, "load_weights", timeout_s)

    def _replace(self, actor: ActorHandle, cause: BaseException) -> None:
        """Put a new engine in the place of `actor`, unless somebody did already; raises `cause` when all is over."""
        if actor is not self._actor:
            return
        if self._is_ended:
            raise cause
        spawn.kill(actor)
        reason = " ".join(str(cause).split())[:300]
        if self._config.weights.backend == "nccl" and self._init_info is not None:
            raise EngineDiedError(
                f"{self.spec.name} died: {reason}; an NCCL group cannot take a new member; the run goes on from its "
                "last checkpoint"
            ) from cause
        if self._num_restarts >= self._config.rollout.max_restarts:
            raise RolloutError(
                f"{self.spec.name} died {self._num_restarts + 1} times, the last time of: {reason}; "
                f"max_restarts allows {self._config.rollout.max_restarts} replacements; see the engine's log, mend the "
                "cause, and continue"
            ) from cause
        self._num_restarts += 1
        logger.warning("%s is replaced (%d): %s", self.spec.name, self._num_restarts, reason)
        self._actor, self._ready = self._start(), None


class RolloutPool:
    """Port `RolloutEngine` over one or more engine slots."""

    def __init__(
        self,
        specs: tuple[ActorSpec, ...],
        config: TrainConfig,
        model_folder: Path,
        max_images: int,
        stop_ids: tuple[int, ...],
    ) -> None:
        self._config = config
        self._slots = [
            EngineSlot(spec, config, partial(spawn.spawn_rollout, spec, config, model_folder, max_images, stop_ids))
            for spec in specs
        ]
        rollout = config.rollout
        self._sampling = Sampling(
            rollout.num_completions, rollout.temperature, rollout.top_p, rollout.max_tokens, config.run.seed
        )
        self._batch: list[tuple[Prompt, asyncio.Future[RolloutGroup]]] = []
        self._tasks: set[asyncio.Task[list[RolloutGroup]]] = set()

    async def generate(self, prompt: Prompt) -> RolloutGroup:
        """One training group; in the deterministic mode the groups of a step are admitted as one batch."""
        if not self._config.rollout.deterministic:
            return await self.sample(prompt, self._sampling)
        future: asyncio.Future[RolloutGroup] = asyncio.get_running_loop().create_future()
        self._batch.append((prompt, future))
        if len(self._batch) == self._config.run.num_prompts_per_step:
            batch, self._batch = self._batch, []
            for index, slot in enumerate(self._slots):
                self._sample_batch(slot, batch[index :: len(self._slots)])
        return await future

    async def sample(self, prompt: Prompt, sampling: Sampling) -> RolloutGroup:
        """One group, drawn as asked, on the engine with the least work."""
        slot = min(self._slots, key=lambda slot: slot.num_prompts)
        [group] = await slot.generate([prompt], sampling)
        return group

    async def start(self) -> None:
        """Wait until every engine answers."""
        await asyncio.gather(*(slot.call("peak_memory_mib", 60.0) for slot in self._slots))

    @property
    def num_engines(self) -> int:
        """Engines of the pool."""
        return len(self._slots)

    async def connect(self, init_infos: list[dict[str, Any]]) -> None:
        """Connect every engine to the learner, each with its own part of what they agree on."""
        await asyncio.gather(*(slot.connect(info) for slot, info in zip(self._slots, init_infos, strict=True)))

    async def load_weights(self, version: int, update_info: dict[str, Any]) -> None:
        """Make new weights live in every engine."""
        await asyncio.gather(*(slot.load_weights(version, update_info) for slot in self._slots))

    async def score(self, prompt: Prompt, token_ids_T: np.ndarray) -> dict[str, np.ndarray]:
        """Log-probs of given tokens, by engine."""
        timeout_s = self._config.weights.timeout_s
        rows = await asyncio.gather(*(slot.call("score", timeout_s, prompt, token_ids_T) for slot in self._slots))
        return {slot.spec.name: row for slot, row in zip(self._slots, rows, strict=True)}

    async def peak_memory_mib(self) -> dict[str, float]:
        """Largest resident memory by engine."""
        rows = await asyncio.gather(*(slot.call("peak_memory_mib", 60.0) for slot in self._slots))
        return {slot.spec.name: row for slot, row in zip(self._slots, rows, strict=True)}

    def kill(self) -> None:
        """End all engines, and whoever waits for their groups."""
        for task in self._tasks:
            task.cancel()
        for slot in self._slots:
            slot.kill()

    def _sample_batch(self, slot: EngineSlot, batch: list[tuple[Prompt, asyncio.Future[RolloutGroup]]]) -> None:
        prompts, futures = [prompt for prompt, _ in batch], [future for _, future in batch]
        self._tasks.add(task := asyncio.create_task(slot.generate(prompts, self._sampling)))
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(partial(_deliver, futures))


def _deliver(futures: list[asyncio.Future[RolloutGroup]], task: asyncio.Task[list[RolloutGroup]]) -> None:
    """Hand a batch's outcome, whatever it is, to those who wait for its groups."""
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    for index, future in enumerate(futures):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result()[index])
