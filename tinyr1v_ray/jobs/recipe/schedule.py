"""Which stages run now: those whose needs are done and whose actors find room beside those of the running ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from tinyr1v_ray.cluster.assignment import Node, first_fit, node_shares
from tinyr1v_ray.cluster.calls import first_cause
from tinyr1v_ray.cluster.placement import Placement
from tinyr1v_ray.jobs.recipe.stage import AnyStage


async def run_stages(
    waiting: Sequence[AnyStage],
    placements: Mapping[str, Placement | None],
    nodes: Callable[[], Sequence[Node]],
    carry_out: Callable[[AnyStage], Coroutine[Any, Any, None]],
) -> None:
    """Carry out all, several at once where `nodes` allow; the first that fails ends the others and is raised.

    `waiting` holds each stage after those it needs; needs that are not in it are done. One whose placement is None
    runs alone. One that is alone always starts: what does not fit at all is refused by itself and not waited for.
    """
    left = {stage.id: stage for stage in waiting}
    running: dict[str, asyncio.Task[None]] = {}
    try:
        async with asyncio.TaskGroup() as tasks:
            while left or running:
                for stage in _ready(left, running):
                    if not running or _fit([placements[name] for name in (*running, stage.id)], nodes()):
                        running[stage.id] = tasks.create_task(carry_out(stage))
                        del left[stage.id]
                await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
                running = {name: task for name, task in running.items() if not task.done()}
    except BaseExceptionGroup as group:
        raise first_cause(group) from group


def _ready(left: Mapping[str, AnyStage], running: Mapping[str, object]) -> list[AnyStage]:
    return [stage for stage in left.values() if not any(need in left or need in running for need in stage.needs)]


def _fit(together: Sequence[Placement | None], nodes: Sequence[Node]) -> bool:
    """Whether stages can run side by side."""
    known = [placement for placement in together if placement is not None]
    wanted = [share.total for placement in known for share in node_shares(placement, nodes)]
    return len(known) == len(together) and not first_fit(wanted, nodes).unplaced
