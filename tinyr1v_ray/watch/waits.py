"""Who waits for whom, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tinyr1v_ray.telemetry.board import GroupState
from tinyr1v_ray.telemetry.progress import format_duration
from tinyr1v_ray.watch.view import Flight, View


def waits(view: View) -> list[str]:
    """What is being done, who waits for it, and since when; nothing where the run left no sign of it."""
    sentences = [_SENTENCES[what](view, seconds) for what, seconds in view.doing.items() if what in _SENTENCES]
    sentences += [f"{what}, for {format_duration(s)}" for what, s in view.doing.items() if what not in _SENTENCES]
    return [*sentences, *_engines_down(view)]


def condition(load: Mapping[str, Any]) -> str:
    """Whether who has this load is up, and how often it was replaced."""
    starting = "starting" if load.get("is_up") is False else ""
    restarts = f"restarts: {load['num_restarts']}" if load.get("num_restarts") else ""
    return ", ".join(word for word in (starting, restarts) if word)


def _generating(view: View, seconds: float) -> str:
    """The learner takes groups in the order of issue, so it waits for the first that is not ready."""
    waited = f"the learner waits for {{}}, for {format_duration(seconds)}"
    first = next((group for group in view.flights if group.state in (GroupState.SAMPLING, GroupState.SCORING)), None)
    if first is None:
        return waited.format("groups")
    by = (
        f"which {first.engine or 'an engine'} samples"
        if first.state == GroupState.SAMPLING
        else "which is being scored"
    )
    return waited.format(f"group {first.position} ({first.prompt_id}), {by} since {format_duration(first.seconds)}")


def _learning(view: View, seconds: float) -> str:
    sampled = [group for group in view.flights if group.state in (GroupState.SAMPLING, GroupState.SCORING)]
    meanwhile = f"meanwhile {len(sampled)} groups are sampled and scored" if sampled else _engines_idle(view)
    return f"the learner trains step {view.step + 1}, for {format_duration(seconds)}; {meanwhile}"


def _engines_idle(view: View) -> str:
    """Since the last group came back, no prompt may start before new weights are live."""
    last: Flight | None = min(view.flights, key=lambda group: group.seconds, default=None)
    return "the engines wait for it" + (f" since {format_duration(last.seconds)}" if last else "")


def _engines_down(view: View) -> Iterator[str]:
    for name, load in view.loads.items():
        if load.get("is_up") is False:
            yield f"{name} is starting" + (f"; {load['num_groups']} groups wait for it" if load["num_groups"] else "")


_SENTENCES = {
    "generate": _generating,
    "learn": _learning,
    "switch": lambda view, s: f"engines and learner change places on their GPUs, for {format_duration(s)}",
    "publish": lambda view, s: f"the engines take the weights of step {view.step + 1}, for {format_duration(s)}",
    "evaluate": lambda view, s: f"held-out items are answered under new weights, for {format_duration(s)}",
    "checkpoint": lambda view, s: f"the learner saves step {view.step}, for {format_duration(s)}",
}
