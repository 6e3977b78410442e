"""What a terminal and what a log file see of a run."""

import io
import time

import pytest
from rich.console import Console

from tinyr1v_ray.telemetry.display import Display
from tinyr1v_ray.telemetry.progress import RunProgress, format_duration
from tinyr1v_ray.types import StepMetrics

SECONDS = {"generate": 1.5, "learn": 0.4, "publish": 0.1, "step": 2.0}
VALUES = {"reward_mean": 0.5, "accuracy": 0.25, "length_mean": 31.0}


def run(display, make, num_steps=3):
    with display, RunProgress(display, num_steps, 2) as progress:
        with progress.starting("Ray"), progress.starting("engine", "the first start compiles"):
            pass
        with progress.evaluating("before training", 40) as advance:
            advance(30)
            advance(10)
        for step in range(1, num_steps + 1):
            groups, advantages_PG, _ = make.step(step)
            for _ in groups:
                progress.count_group()
            progress.log(StepMetrics(step, step, VALUES, SECONDS), groups, advantages_PG)


def test_a_log_file_gets_one_plain_line_an_event(make):
    output = io.StringIO()
    run(Display(Console(file=output, width=40)), make)
    lines = output.getvalue().splitlines()
    assert "\x1b" not in output.getvalue()
    assert lines[:2] == ["starting Ray", "starting engine (the first start compiles)"]
    assert lines[2].startswith("engine ready after 0.") and lines[3].startswith("Ray ready after 0.")
    assert lines[4] == "evaluating before training: 40 items"
    assert lines[5].startswith("evaluated before training: 40 items in 0.")
    step = "  reward 0.500  accuracy 0.250  tokens 31.0  2.0 s (generate 1.5, learn 0.4, publish 0.1)"
    assert lines[6:] == [f"step 1/3{step}  4 s left", f"step 2/3{step}  2 s left", f"step 3/3{step}"]


def test_a_terminal_sees_bars_with_groups_and_time_left(make):
    output = io.StringIO()
    console = Console(file=output, width=140, force_terminal=True, legacy_windows=False)
    with Display(console) as display, RunProgress(display, 3, 2) as progress:
        groups, advantages_PG, _ = make.step(1)
        progress.log(StepMetrics(1, 1, VALUES, SECONDS), groups, advantages_PG)
        progress.count_group()
        with progress.starting("engine"):
            time.sleep(0.3)  # bars are drawn ten times a second
    text = output.getvalue()
    assert "steps" in text and "1/3, 1/2 groups of the next, 4 s left" in text and "starting engine" in text


def test_a_run_that_goes_on_begins_at_its_checkpoint_and_keeps_the_groups_that_it_samples(make):
    output = io.StringIO()
    console = Console(file=output, width=140, force_terminal=True, legacy_windows=False)
    with Display(console) as display, RunProgress(display, 120, 2) as progress:
        progress.count_group()  # of an attempt that ended
        progress.go_on_from(100)
        progress.count_group()
        time.sleep(0.3)
        groups, advantages_PG, _ = make.step(1)
        for _ in groups:
            progress.count_group()
        progress.log(StepMetrics(101, 101, VALUES, SECONDS), groups, advantages_PG)
        time.sleep(0.3)
    text = output.getvalue()
    assert "100/120, 1/2 groups of the next" in text and "101/120, 1/2 groups of the next, 38 s left" in text


def test_quiet_shows_nothing(make, capsys):
    run(Display(quiet=True), make)
    assert capsys.readouterr() == ("", "")


def test_a_failed_start_is_not_called_ready():
    output = io.StringIO()
    with (
        pytest.raises(KeyError),
        Display(Console(file=output)) as display,
        RunProgress(display, 3, 2) as progress,
        progress.starting("engine"),
    ):
        raise KeyError
    assert output.getvalue() == "starting engine\n"


def test_time_left_is_the_median_of_recent_steps_times_those_left(make):
    progress = RunProgress(Display(Console(file=io.StringIO())), 100, 2)
    progress.go_on_from(50)
    assert progress.time_left_s() is None
    for step, seconds in zip(range(51, 62), [600, *[2.0] * 9, 90.0], strict=True):
        progress.log(StepMetrics(step, step, VALUES, {"step": seconds}), [], [])
    assert progress.time_left_s() == 2.0 * 39


def test_numbers_that_are_missing_are_left_out(make):
    output = io.StringIO()
    progress = RunProgress(Display(Console(file=output)), 12, 2)
    progress.log(StepMetrics(3, 3, {"reward_mean": float("nan")}, {}), [], [])
    assert output.getvalue() == "step  3/12  reward nan\n"


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599.7, "1 h 00 min"), (86400, "24 h 00 min")],
)
def test_durations_round_upwards_into_the_next_unit(seconds, text):
    assert format_duration(seconds) == text


def test_work_that_goes_on_side_by_side_is_told_apart_by_its_label():
    output = io.StringIO()
    with Display(Console(file=output)) as display:
        for label in ("train math", "train ocr"):
            with RunProgress(display.labelled(label), 3, 2) as progress, progress.evaluating("the items", 2) as advance:
                advance(2)
    lines = output.getvalue().splitlines()
    assert [line.split(" in ")[0] for line in lines] == [
        "train math: evaluating the items: 2 items",
        "train math: evaluated the items: 2 items",
        "train ocr: evaluating the items: 2 items",
        "train ocr: evaluated the items: 2 items",
    ]
