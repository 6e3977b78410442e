"""Which stages run now: those whose needs are done and that fit beside the ones that run already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyr1v_ray.orchestration.calls import first_cause
from tinyr1v_ray.orchestration.pipeline.stages import Stage


@dataclass(frozen=True)
class Need:
    """What a stage holds while it runs."""

    num_cpus: float
    num_gpus: float

    def fits(self, free: Need) -> bool:
        """Whether it can start beside what runs."""
        return self.num_cpus <= free.num_cpus + 1e-6 and self.num_gpus <= free.num_gpus + 1e-6


async def run_stages(
    waiting: Sequence[Stage],
    needs: Mapping[str, Need],
    total: Need,
    carry_out: Callable[[Stage], Coroutine[Any, Any, None]],
) -> None:
    """Carry out all, several at once where `total` allows; the first that fails ends the others and is raised.

    `waiting` holds each stage after those it needs; needs that are not in it are done. A stage alone always starts, so
    one that does not fit at all is refused by itself and not waited for.
    """
    left = {stage.id: stage for stage in waiting}
    running: dict[str, asyncio.Task[None]] = {}
    try:
        async with asyncio.TaskGroup() as tasks:
            while left or running:
                free = _free(total, [needs[name] for name in running])
                for stage in _ready(left, running):
                    if not running or needs[stage.id].fits(free):
                        running[stage.id] = tasks.create_task(carry_out(stage))
                        del left[stage.id]
                        free = _free(total, [needs[name] for name in running])
                await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
                running = {name: task for name, task in running.items() if not task.done()}
    except BaseExceptionGroup as group:
        raise first_cause(group) from group


def _ready(left: Mapping[str, Stage], running: Mapping[str, object]) -> list[Stage]:
    return [stage for stage in left.values() if not any(need in left or need in running for need in stage.needs)]


def _free(total: Need, taken: Sequence[Need]) -> Need:
    return Need(
        total.num_cpus - sum(need.num_cpus for need in taken), total.num_gpus - sum(need.num_gpus for need in taken)
    )
