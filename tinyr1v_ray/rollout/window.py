"""How far generation may run ahead of training: one integer.

The window holds (max_staleness + 1) x num_prompts_per_step groups, first in, first out. A slot is charged when sampling
starts and freed when the weights trained on its group are live (or the group was rejected), so no group is ever trained
more than `max_staleness` versions after its sampling began, and the order of consumption is the order of admission.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tinyr1v_ray.types import ScoredGroup


class StalenessWindow:
    """Admits prompts, holds their scored groups, and hands them out in admission order.

    All methods belong to one event loop. A group's future that fails makes `take` raise its error.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"window capacity {capacity}; it holds at least one group; raise it")
        self._free_slots = asyncio.Semaphore(capacity)
        self._groups: deque[asyncio.Future[ScoredGroup]] = deque()
        self._admitted = asyncio.Condition()

    async def admit(self) -> asyncio.Future[ScoredGroup]:
        """Wait for a free slot and charge it; the caller resolves the returned future with the scored group."""
        await self._free_slots.acquire()
        future: asyncio.Future[ScoredGroup] = asyncio.get_running_loop().create_future()
        async with self._admitted:
            self._groups.append(future)
            self._admitted.notify_all()
        return future

    async def take(self, count: int, accept: Callable[[ScoredGroup], bool]) -> tuple[list[ScoredGroup], int]:
        """The next `count` groups that `accept` lets through, and how many it did not.

        A rejected group frees its slot at once, so that a fresh prompt can take its place within the same step.
        """
        accepted: list[ScoredGroup] = []
        num_rejected = 0
        while len(accepted) < count:
            async with self._admitted:
                await self._admitted.wait_for(lambda: bool(self._groups))
                future = self._groups[0]
            group = await future
            self._groups.popleft()
            if accept(group):
                accepted.append(group)
            else:
                num_rejected += 1
                self.release(1)
        return accepted, num_rejected

    def release(self, count: int) -> None:
        """Free the slots of groups whose weights are live."""
        for _ in range(count):
            self._free_slots.release()
