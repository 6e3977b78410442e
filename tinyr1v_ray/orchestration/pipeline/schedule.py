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


async def run_stages(
    waiting: Sequence[Stage],
    needs: Mapping[str, Need | None],
    total: Callable[[], Need],
    carry_out: Callable[[Stage], Coroutine[Any, Any, None]],
) -> None:
    """Carry out all, several at once where `total` allows; the first that fails ends the others and is raised.

    `waiting` holds each stage after those it needs; needs that are not in it are done. A stage without a need (None)
    runs alone. One that is alone always starts: what does not fit at all is refused by itself and not waited for.
    """
    left = {stage.id: stage for stage in waiting}
    running: dict[str, asyncio.Task[None]] = {}
    try:
        async with asyncio.TaskGroup() as tasks:
            while left or running:
                cluster = total()
                for stage in _ready(left, running):
                    if not running or _fits(needs[stage.id], [needs[name] for name in running], cluster):
                        running[stage.id] = tasks.create_task(carry_out(stage))
                        del left[stage.id]
                await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
                running = {name: task for name, task in running.items() if not task.done()}
    except BaseExceptionGroup as group:
        raise first_cause(group) from group


def _ready(left: Mapping[str, Stage], running: Mapping[str, object]) -> list[Stage]:
    return [stage for stage in left.values() if not any(need in left or need in running for need in stage.needs)]


def _fits(need: Need | None, taken: Sequence[Need | None], total: Need) -> bool:
    """Whether it can start beside what runs."""
    together = [need, *taken]
    if any(each is None for each in together):
        return False
    known = [each for each in together if each is not None]
    return (
        sum(each.num_cpus for each in known) <= total.num_cpus + 1e-6
        and sum(each.num_gpus for each in known) <= total.num_gpus + 1e-6
    )
