"""One place for an engine: whoever fills it is watched, and replaced when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, TypeVar

from ray.exceptions import RayActorError

from tinyr1v_ray.cluster.handle import Handle
from tinyr1v_ray.cluster.placement import ActorSpec
from tinyr1v_ray.config.engine import EngineSettings
from tinyr1v_ray.errors import DeadlineError, EngineDiedError, EngineLostError, RolloutError
from tinyr1v_ray.rollout.engine import InferenceEngine, WeightSource, WeightUpdate
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import Prompt, RolloutGroup

P = ParamSpec("P")
T = TypeVar("T")
StartEngine = Callable[[ActorSpec], Handle[InferenceEngine]]

_DEATHS = (RayActorError, DeadlineError, EngineDiedError)
logger = logging.getLogger(__name__)


class EngineSlot:
    """The engine that fills the place now, the weights that it must hold, and how often it may be replaced.

    `start` puts a new engine into the place; it answers once it has started.
    """

    def __init__(self, spec: ActorSpec, settings: EngineSettings, start: StartEngine) -> None:
        self.spec, self._settings, self._start = spec, settings, start
        self._engine = start(spec)
        self._ready: asyncio.Task[None] | None = None
        self._source: WeightSource | None = None
        self._weights: tuple[int, WeightUpdate] | None = None
        self._num_restarts = 0
        self._is_ended = False
        self._last_answer_s = 0.0
        self._held: dict[object, list[Prompt]] = {}
        self.num_prompts = 0

    async def result(
        self,
        method: Callable[Concatenate[InferenceEngine, P], Future[T]],
        timeout_s: float,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Result of an engine's method; raises RolloutError when engines died more often than `max_restarts`."""
        return await self._ask(lambda engine: engine.result(method, timeout_s, *args, **kwargs))

    def load(self) -> dict[str, Any]:
        """The groups in hand, the positions of those that are trained on, and whether the engine runs."""
        return {
            "num_groups": self.num_prompts,
            "positions": [prompt.position for held in self._held.values() for prompt in held if prompt.position >= 0],
            "num_restarts": self._num_restarts,
            "is_up": self._ready is not None and self._ready.done(),
        }

    async def started(self) -> None:
        """Wait until the place is filled."""
        await self._live_engine()

    async def peak_memory_mib(self, timeout_s: float) -> float:
        """Largest resident memory of the engine that fills the place now."""
        return await self._ask(lambda engine: engine.peak_memory_mib(timeout_s))

    async def connect(self, source: WeightSource, timeout_s: float) -> None:
        """Tell this engine, and all that will replace it, where weights come from."""
        self._source = source
        await self.result(InferenceEngine.connect, timeout_s, source)

    async def load_weights(self, version: int, update: WeightUpdate, timeout_s: float) -> None:
        """Make weights live in this engine and in all that will replace it."""
        self._weights = (version, update)
        await self.result(InferenceEngine.load_weights, timeout_s, version, update)

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[RolloutGroup]:
        """Groups of prompts that are admitted together.

        An engine with much to do is not a hung one: its deadline, `answer_timeout_s` a prompt, runs from the last group
        that it answered, or from the request.
        """
        request = object()
        self._held[request] = prompts
        self.num_prompts += len(prompts)
        try:
            return await self._ask(lambda engine: self._answer(engine, prompts, sampling))
        finally:
            self.num_prompts -= len(prompts)
            del self._held[request]

    async def _answer(
        self, engine: Handle[InferenceEngine], prompts: list[Prompt], sampling: Sampling
    ) -> list[RolloutGroup]:
        asked_s, patience_s = time.monotonic(), self._settings.answer_timeout_s * len(prompts)
        answer = asyncio.ensure_future(engine.result(InferenceEngine.generate, None, prompts, sampling))
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

    def replace(self, cause: Exception) -> None:
        """End the engine that fills the place now, and start another one."""
        self._replace(self._engine, cause)

    def kill(self) -> None:
        """End the engine; no other takes its place."""
        self._is_ended = True
        if self._ready is not None:
            self._ready.cancel()
        self._engine.kill()

    async def _ask(self, ask: Callable[[Handle[InferenceEngine]], Awaitable[T]]) -> T:
        """An answer, asked of a replacement as often as the engine dies."""
        while True:
            engine = await self._live_engine()
            try:
                return await ask(engine)
            except _DEATHS as error:
                self._replace(engine, error)

    async def _live_engine(self) -> Handle[InferenceEngine]:
        if self._ready is None:
            self._ready = asyncio.create_task(self._bring_up(self._engine), name=f"bring up {self.spec.name}")
        ready, engine = self._ready, self._engine
        try:
            await asyncio.shield(ready)
        except _DEATHS as error:
            self._replace(engine, error)
            return await self._live_engine()
        return self._engine

    async def _bring_up(self, engine: Handle[InferenceEngine]) -> None:
        timeout_s = self._settings.start_timeout_s
        await engine.started(timeout_s)
        if self._num_restarts == 0:
            return
        if self._source is not None:
            await engine.result(InferenceEngine.connect, timeout_s, self._source)
        if self._weights is not None:
            await engine.result(InferenceEngine.load_weights, timeout_s, *self._weights)

    def _replace(self, engine: Handle[InferenceEngine], cause: BaseException) -> None:
        """Put a new engine in the place of `engine`, unless somebody did already; raises `cause` when all is over."""
        if engine is not self._engine:
            return
        if self._is_ended:
            raise cause
        engine.kill()
        reason = " ".join(str(cause).split())[:300]
        if self._source is not None and not self._source.admits_replacements:
            raise EngineLostError(
                f"{self.spec.name} died: {reason}; the way its weights come (nccl, ipc) cannot take a new member; the "
                "run goes on from its last checkpoint"
            ) from cause
        if self._num_restarts >= self._settings.max_restarts:
            raise RolloutError(
                f"{self.spec.name} died {self._num_restarts + 1} times, the last time of: {reason}; "
                f"max_restarts allows {self._settings.max_restarts} replacements; see the engine's log, mend the "
                "cause, and continue"
            ) from cause
        self._num_restarts += 1
        logger.warning("%s is replaced (%d): %s", self.spec.name, self._num_restarts, reason)
        self._engine, self._ready = self._start(self.spec), None
