"""A view of a run for a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tinyr1v_ray.telemetry.board import GroupState
from tinyr1v_ray.telemetry.progress import format_duration
from tinyr1v_ray.watch.view import View, resampled
from tinyr1v_ray.watch.waits import condition, waits

_COLOURS = {
    GroupState.SAMPLING: "blue",
    GroupState.SCORING: "yellow",
    GroupState.READY: "cyan",
    GroupState.LEARNING: "green",
}
_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVE_COLUMNS = 60
_NUM_EVENTS = 5
_NUM_ANSWERS = 4


def screen(view: View) -> RenderableType:
    """Everything, from top to bottom."""
    parts: list[RenderableType] = [_head(view), _curves(view)]
    parts += [Text(f"  • {line}", style="bold") for line in waits(view)]
    parts += [*_groups(view), *_loads(view), *_events(view), *_answers(view)]
    return Group(*parts)


def _head(view: View) -> RenderableType:
    head = Table.grid(padding=(0, 2))
    head.add_row(Text(view.name, style="bold"), Text(view.state, style="green" if view.is_running else "magenta"))
    left = f", {format_duration(view.left_s)} left" if view.left_s is not None else ""
    bar = ProgressBar(total=view.num_steps, completed=view.step, width=40)
    head.add_row(Text(f"step {view.step}/{view.num_steps}{left}"), bar)
    stages = [Text(f"{name}: {state}") for name, state in view.stages]
    return Group(*stages, head)


def _curves(view: View) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for label, points in view.curves.items():
        if points:
            values = [value for _, value in points]
            span = f"{min(values):.3g} to {max(values):.3g}"
            table.add_row(Text(label), Text(f"{values[-1]:.3g}", style="bold"), Text(sparkline(values)), Text(span))
    return table


def sparkline(values: Sequence[float]) -> str:
    """A curve in one line.

    >>> sparkline([0, 0.5, 1])
    '▁▅█'
    """
    shown = resampled(values, _CURVE_COLUMNS)
    low, span = min(shown), (max(shown) - min(shown)) or 1.0
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in shown)


def _groups(view: View) -> Iterator[RenderableType]:
    if not view.group_states:
        return
    yield _rule(f"{view.num_in_flight} groups in flight")
    counts = Text("  ").join(
        Text(f"■ {view.group_states.get(state, 0)} {state}", style=colour) for state, colour in _COLOURS.items()
    )
    yield counts
    yield Text("").join(Text("■", style=_COLOURS.get(GroupState(group.state), "")) for group in view.flights[:400])


def _loads(view: View) -> Iterator[RenderableType]:
    if not view.loads and not view.shares:
        return
    yield _rule("engines, scorers, learner")
    table = Table.grid(padding=(0, 2))
    for name, load in view.loads.items():
        table.add_row(Text(name), Text(f"{load['num_groups']} groups in hand"), Text(condition(load)))
    if view.loads:
        yield table
    if view.tokens_per_second is not None:
        yield Text(f"{view.tokens_per_second:.0f} tokens per second in the last step")
    if view.shares:
        yield Text("learner: " + ", ".join(f"{label} {share:.0%}" for label, share in view.shares.items()))


def _events(view: View) -> Iterator[RenderableType]:
    if view.events:
        yield _rule("restarts and warnings")
    for event in view.events[-_NUM_EVENTS:]:
        at = time.strftime("%H:%M:%S", time.localtime(event["time"]))
        yield Text(f"{at}  {event['text']}", overflow="ellipsis")


def _answers(view: View) -> Iterator[RenderableType]:
    for sample in view.samples:
        yield _rule(f"step {view.samples_step}: {sample['prompt_id']}")
        yield Text(f"{' '.join(sample['question'].split())}  →  {sample['answer']}", overflow="ellipsis", no_wrap=True)
        for image in sample["images"]:
            yield Text(str(view.images / image), style="dim")
        table = Table.grid(padding=(0, 2))
        table.add_row(*(Text(word, style="dim") for word in ("reward", "advantage", "tokens", "answer")))
        for answer in sample["completions"][:_NUM_ANSWERS]:
            text = Text(" ".join(answer["text"].split()), overflow="ellipsis", no_wrap=True)
            style = "green" if answer["correct"] else "red"
            numbers = f"{answer['reward']:.3f}", f"{answer['advantage']:+.3f}", f"{answer['num_tokens']}"
            table.add_row(*(Text(number, style=style, justify="right") for number in numbers), text)
        yield table


def _rule(title: str) -> Rule:
    return Rule(Text(title), align="left", style="dim")
