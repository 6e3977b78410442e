"""The learner ranks as one: every call goes to all ranks at once, and one that fails ends the group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.exceptions import RayActorError

from tinyr1v_ray.cluster.handle import Handle
from tinyr1v_ray.config.learner import LearnerSettings
from tinyr1v_ray.errors import DeadlineError, LearnerDiedError
from tinyr1v_ray.learner.rank import LearnerRank, Membership
from tinyr1v_ray.types import LearnerUpdate, TrainBatch

P = ParamSpec("P")
T = TypeVar("T")


class LearnerGroup:
    """Port `Learner` over one or more ranks.

    Collectives bind the ranks together: when one dies the others wait for it in vain, so its death is the group's, and
    whoever owns the run starts a new group from the last checkpoint (LearnerDiedError).
    """

    def __init__(self, ranks: Sequence[Handle[LearnerRank]], settings: LearnerSettings) -> None:
        self._ranks, self._settings = tuple(ranks), settings

    async def start(self, build: Callable[[Membership], LearnerRank]) -> None:
        """Build every rank in its process and join them; they meet on the first one's node."""
        endpoint, timeout_s = await self.free_endpoint(), self._settings.start_timeout_s
        await self._together(
            "start",
            [
                rank.build(partial(build, Membership(index, len(self._ranks), *endpoint)), timeout_s)
                for index, rank in enumerate(self._ranks)
            ],
        )

    async def free_endpoint(self) -> tuple[str, int]:
        """Address of the first rank's node, and a port that is free there."""
        first = self._ranks[0]
        return await _owned(first.name, "free_endpoint", first.free_endpoint(self._settings.start_timeout_s))

    async def update(self, batch: TrainBatch) -> LearnerUpdate:
        """Train."""
        return await self.everywhere(LearnerRank.update, self._settings.update_timeout_s, batch)

    async def everywhere(
        self, method: Callable[Concatenate[LearnerRank, P], T], timeout_s: float, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What the first rank answers to a call that all ranks get; arguments are stored once for all of them."""
        shared: Any = [ray.put(argument) for argument in args]
        calls = [rank.call(method, timeout_s, *shared, **kwargs) for rank in self._ranks]
        return (await self._together(method.__name__, calls))[0]

    async def first(
        self, method: Callable[Concatenate[LearnerRank, P], T], timeout_s: float, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What the first rank answers to a call that it alone gets."""
        rank = self._ranks[0]
        return await _owned(rank.name, method.__name__, rank.call(method, timeout_s, *args, **kwargs))

    async def peak_memory_mib(self) -> dict[str, float]:
        """Largest resident memory by rank."""
        rows = await self._together("peak_memory_mib", [rank.peak_memory_mib(60.0) for rank in self._ranks])
        return {rank.name: row for rank, row in zip(self._ranks, rows, strict=True)}

    def kill(self) -> None:
        """End all ranks."""
        for rank in self._ranks:
            rank.kill()

    async def _together(self, call: str, answers: Sequence[Awaitable[T]]) -> list[T]:
        tasks = [asyncio.ensure_future(answer) for answer in answers]
        try:
            return list(await _owned("learner", call, asyncio.gather(*tasks)))
        finally:
            for task in tasks:
                task.cancel()


async def _owned(actor: str, call: str, answer: Awaitable[T]) -> T:
    """An answer, or the death of the group that it means to have none."""
    try:
        return await answer
    except (RayActorError, DeadlineError) as error:
        reason = " ".join(str(error).split())[:500]
        raise LearnerDiedError(
            f"{actor} failed in {call}: {reason}; a rank that dies takes its group with it; the run goes on from its "
            "last checkpoint"
        ) from error
