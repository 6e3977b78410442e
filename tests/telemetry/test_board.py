"""What a driver says of itself while it runs: the board, and the warnings on the way."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from tinyr1v_ray.telemetry import board as board_module
from tinyr1v_ray.telemetry import events
from tinyr1v_ray.telemetry.board import Board, GroupState, shown
from tinyr1v_ray.telemetry.events import events_kept
from tinyr1v_ray.types import Prompt, RolloutGroup, ScoredGroup, StepMetrics

LOGGER = logging.getLogger("tinyr1v_ray.somewhere")


def group(position: int) -> ScoredGroup:
    return ScoredGroup(RolloutGroup(Prompt(f"p{position}", "math", "?", "1", (1,), position=position), ()), ())


def prompt(position: int) -> Prompt:
    return group(position).group.prompt


def test_a_group_is_followed_from_issue_to_training() -> None:
    times = iter(range(100))
    board = Board(now=lambda: float(next(times)))
    for position in (0, 1, 2, 3):
        board.move(prompt(position), GroupState.SAMPLING)
    board.move(prompt(1), GroupState.SCORING)
    for position in (0, 2):
        board.move(prompt(position), GroupState.READY)
    assert board.take(group(0), True) and not board.take(group(2), False)
    row = json.loads(json.dumps(board.as_row()))
    assert row["groups"] == [[0, "p0", "learning", 7], [1, "p1", "scoring", 4], [3, "p3", "sampling", 3]]
    assert row["states"] == {"learning": 1, "scoring": 1, "sampling": 1} and row["ended"] == ""
    board.log(StepMetrics(1, 1, {}, {}), [group(0)], [])
    assert [position for position, *_ in board.as_row()["groups"]] == [1, 3]
    board.forget_groups()
    assert board.as_row()["groups"] == []


def test_a_board_on_disk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "_MOST_GROUPS", 3)
    board = Board()
    for position in (9, 4, 7, 1, 8):
        board.move(prompt(position), GroupState.SAMPLING)
    assert [position for position, *_ in board.as_row()["groups"]] == [1, 4, 7]
    assert board.as_row()["states"] == {"sampling": 5}


@pytest.mark.parametrize(
    ("error", "ended"),
    [(None, "finished"), (ValueError("no\nroom"), "no room"), (asyncio.CancelledError(), "interrupted")],
)
def test_the_file_says_what_is_done_and_how_it_ended(
    error: BaseException | None, ended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "EVERY_S", 0.005)
    board, seen = Board(), []

    async def run() -> None:
        async with shown(board, tmp_path):
            with board.doing("learn"):
                while not (tmp_path / "now.json").exists():
                    await asyncio.sleep(0.005)
                seen.append(json.loads((tmp_path / "now.json").read_text()))
            if error:
                raise error

    if error is None:
        asyncio.run(run())
    else:
        with pytest.raises(type(error)):
            asyncio.run(run())
    assert list(seen[0]["doing"]) == ["learn"] and seen[0]["ended"] == ""
    last = json.loads((tmp_path / "now.json").read_text())
    assert last["ended"] == ended and last["doing"] == {} and [path.name for path in tmp_path.iterdir()] == ["now.json"]


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    async def run() -> str:
        async with shown(Board(), tmp_path / "gone"):
            return "done"

    assert asyncio.run(run()) == "done"


def test_runs_side_by_side_keep_their_warnings_apart(tmp_path: Path) -> None:
    """Of threads that a task starts, too; what is no warning, or nobody's, is not kept."""

    async def run(name: str, both: asyncio.Barrier) -> None:
        (tmp_path / name).mkdir()
        with events_kept(tmp_path / name):
            await both.wait()
            LOGGER.warning("%s is replaced (1):\n it died", name)
            LOGGER.info("nothing")
            await asyncio.to_thread(LOGGER.error, f"{name} in a thread")
            await both.wait()

    async def run_both() -> None:
        both = asyncio.Barrier(2)
        await asyncio.gather(run("a", both), run("b", both))

    asyncio.run(run_both())
    LOGGER.warning("after the end")
    for name in ("a", "b"):
        rows = [json.loads(line) for line in (tmp_path / name / "events.jsonl").read_text().splitlines()]
        assert [row["text"] for row in rows] == [f"{name} is replaced (1): it died", f"{name} in a thread"]


def test_what_repeats_for_ever_fills_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_MOST_EVENTS", 3)
    with events_kept(tmp_path):
        for number in range(9):
            LOGGER.warning("%d", number)
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 3
