"""Steps that teach nothing, from groups to the line that says so."""

import json
import math

import numpy as np
import pytest

from tinyr1v_ray.telemetry.lessons import NUM_STEPS, Lack, LessonWatch, describe_lacks, lack_of, read_lacks
from tinyr1v_ray.telemetry.metrics import step_metrics
from tinyr1v_ray.telemetry.summary import format_summary
from tinyr1v_ray.types import Finish, LearnerUpdate, Score, StepAdvantages

TEACHES = {"reward_mean": 0.5, "accuracy": 0.5, "truncated_share": 0.1, "equal_reward_share": 0.5, "no_signal_share": 0}


def step_of(make, scores_PG, advantages_PG, finish=Finish.STOP, step=1):
    groups = [
        make.group(str(index), [make.completion(4, finish=finish) for _ in scores], scores)
        for index, scores in enumerate(scores_PG)
    ]
    advantages = StepAdvantages(tuple(advantages_PG), tuple(advantages_PG))
    return step_metrics(step, LearnerUpdate(step, {"grad_norm": 0.3}), groups, advantages, 0, {"step": 1.0})


def wrong(total):
    return Score(total, {"answer": 0.0}, correct=False)


RIGHT, NONE, SOME, LOST = Score(1.0, {}, True), wrong(0.0), wrong(0.1), Score(0.0, failure="timed out")
FLAT, UP = np.zeros(2), np.array([1.0, -1.0])


@pytest.mark.parametrize(
    ("scores_PG", "advantages_PG", "finish", "lack"),
    [
        ([[RIGHT, NONE], [RIGHT, RIGHT]], [UP, FLAT], Finish.STOP, None),
        ([[NONE, NONE], [NONE, NONE]], [FLAT, FLAT], Finish.STOP, Lack.UNREWARDED),
        ([[SOME, SOME], [NONE, NONE]], [FLAT, FLAT], Finish.STOP, Lack.WRONG),
        ([[SOME, SOME], [SOME, SOME]], [UP, UP], Finish.STOP, Lack.WRONG),  # only lengths are trained
        ([[RIGHT, RIGHT], [RIGHT, RIGHT]], [UP, FLAT], Finish.STOP, None),  # LIPO shortens right answers
        ([[RIGHT, RIGHT], [RIGHT, RIGHT]], [FLAT, FLAT], Finish.STOP, Lack.RIGHT),
        ([[RIGHT, RIGHT], [NONE, NONE]], [FLAT, FLAT], Finish.STOP, Lack.ALIKE),
        ([[RIGHT, NONE], [RIGHT, NONE]], [FLAT, FLAT], Finish.STOP, Lack.UNTRAINED),
        ([[NONE, NONE], [RIGHT, NONE]], [FLAT, UP], Finish.LENGTH, Lack.TRUNCATED),
        ([[LOST, LOST], [LOST, LOST]], [FLAT, FLAT], Finish.STOP, Lack.UNUSABLE),
        ([[RIGHT, RIGHT]], [FLAT], Finish.ABORT, Lack.UNUSABLE),
    ],
)
def test_what_a_step_lacks(make, scores_PG, advantages_PG, finish, lack):
    metrics = step_of(make, scores_PG, advantages_PG, finish)
    assert lack_of(metrics.values) is lack
    row = {name: None if math.isnan(value) else value for name, value in metrics.as_row().items()}
    assert lack_of(row) is lack  # as `metrics.jsonl` has it


def test_a_gradient_of_zero_trains_nothing():
    assert lack_of({**TEACHES, "grad_norm": 0.2}) is None and lack_of({**TEACHES, "grad_norm": 0.0}) is Lack.UNTRAINED


def test_a_line_comes_after_steps_in_a_row_and_then_ever_more_seldom(make):
    said = []
    watch = LessonWatch(said.append)

    def log(step, teaches):
        scores = [RIGHT, NONE] if teaches else [NONE, NONE]
        watch.log(step_of(make, [scores], [UP if teaches else FLAT], step=step), [], [])

    for step in range(1, NUM_STEPS):
        log(step, teaches=False)
    log(NUM_STEPS, teaches=True)
    assert said == []
    for step in range(NUM_STEPS + 1, NUM_STEPS + 21):
        log(step, teaches=False)
    assert said == [f"warning: steps 4 to {last}: {Lack.UNREWARDED}" for last in (6, 9, 15)]


def rows(*lacks):
    known = {
        "": TEACHES,
        "cut": {**TEACHES, "truncated_share": 0.97},
        "none": {**TEACHES, "reward_mean": None},
    }
    return [{"step": step, **known[lack]} for step, lack in enumerate(lacks, 1)]


def test_the_summary_has_the_longest_spans(tmp_path):
    found = rows(*["cut"] * 3, "", "none", "none", *["none"] * 3, "", "cut", "cut")
    assert describe_lacks(found) == [f"steps 5 to 9: {Lack.UNUSABLE}", f"steps 1 to 3: {Lack.TRUNCATED}"]
    assert describe_lacks(rows("cut")) == [f"step 1: {Lack.TRUNCATED}"]
    assert describe_lacks(rows("cut", "")) == [] and describe_lacks([]) == []
    many = describe_lacks(rows(*["cut", "cut", "cut", ""] * 8))
    assert len(many) == 6 and many[-1] == "3 more such spans"
    path = tmp_path / "metrics.jsonl"
    assert read_lacks(path) == []
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    assert read_lacks(path) == describe_lacks(found)
    text = format_summary([], [], [], {"run folder": tmp_path}, read_lacks(path))
    assert text.splitlines() == [
        *(f"  warning: {line}" for line in describe_lacks(found)),
        f"  run folder  {tmp_path}",
    ]
