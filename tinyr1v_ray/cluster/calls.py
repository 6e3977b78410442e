"""Awaiting actors: every wait has a deadline that names the actor and the call, and a death has a cause."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayTaskError

from tinyr1v_ray.errors import DeadlineError, EngineLostError, LearnerDiedError, TinyR1VError


async def finish(reference: ray.ObjectRef, actor: str, call: str, timeout_s: float | None) -> Any:
    """Result of an actor's call; `timeout_s` None waits as long as it takes.

    Raises DeadlineError after `timeout_s`, RayActorError when the actor is gone, and the actor's own error where it is
    one of ours or the operating system's.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await reference
    except TimeoutError as error:
        raise DeadlineError(
            f"{actor}.{call} did not answer within {timeout_s:g} s; every call has a deadline; see the actor's log, "
            "or raise the timeout in the config"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, (TinyR1VError, OSError)):
            raise error.cause from error
        raise


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a task group: a death that the run can recover from, else the first that was raised."""
    errors = list(_flat(group))
    deaths = (error for error in errors if isinstance(error, (LearnerDiedError, EngineLostError)))
    return next(deaths, errors[0])


def _flat(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flat(error)
        else:
            yield error
