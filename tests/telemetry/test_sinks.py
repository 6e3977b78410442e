"""Every sink is read back by what a user would read it with."""

import json
import sys
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tinyr1v_ray.config.telemetry import TelemetrySettings
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.telemetry.sinks import StepRecorder, TensorBoardSink, WandbSink, open_recorder, rewind
from tinyr1v_ray.types import StepAdvantages


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(recorder, make, steps):
    for step in steps:
        groups, advantages_PG, update = make.step(step)
        advantages = StepAdvantages(tuple(advantages_PG), tuple(advantages_PG))
        recorder.log(step, update, groups, advantages, 0, {"learn": 0.5, "step": 2.0})


def test_jsonl_rows(tmp_path, make):
    recorder = open_recorder(tmp_path, TelemetrySettings(tensorboard=False, num_samples_per_step=0), {})
    record(recorder, make, [1, 2])
    recorder.close()
    metrics, groups = read_rows(tmp_path / "metrics.jsonl"), read_rows(tmp_path / "groups.jsonl")
    assert [row["step"] for row in metrics] == [1, 2]
    assert metrics[0]["reward_mean"] == 0.75 and metrics[0]["kl"] == 0.01 and metrics[0]["seconds_learn"] == 0.5
    assert [row["prompt_id"] for row in groups] == ["p1-0", "p1-1", "p2-0", "p2-1"]
    assert groups[2] == {
        "step": 2,
        "version": 2,
        "position": -1,
        "prompt_id": "p2-0",
        "epoch": 1,
        "domain": "ocr",
        "first_versions": [1, 1],
        "last_versions": [1, 1],
        "rewards": [1.0, 0.0],
        "lengths": [4, 6],
        "advantages": [0.5, -0.5],
        "finish": ["stop", "stop"],
        "correct": [True, False],
        "failures": ["", ""],
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["groups.jsonl", "metrics.jsonl"]


def test_a_resumed_run_records_each_step_once(tmp_path, make):
    settings = TelemetrySettings()
    killed = open_recorder(tmp_path, settings, {})
    record(killed, make, [1, 2, 3, 4])
    with (tmp_path / "groups.jsonl").open("a") as file:  # the kill came while step 5 was written
        file.write('{"step": 5, "prompt_id": "p5-0"}\n{"step": 5, "pro')
    resumed = open_recorder(tmp_path, settings, {}, first_step=3)
    record(resumed, make, [3, 4, 5])
    resumed.close()
    killed.close()
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    ids = [row["prompt_id"] for row in read_rows(tmp_path / "groups.jsonl")]
    assert ids == [f"p{step}-{index}" for step in (1, 2, 3, 4, 5) for index in (0, 1)]
    samples = sorted(path.name for path in (tmp_path / "samples").glob("*.json"))
    assert samples == [f"step_{step:06d}.json" for step in (1, 2, 3, 4, 5)]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/reward_mean")] == [1, 2, 3, 4, 5]


def test_a_run_killed_before_its_first_checkpoint_starts_over_in_tensorboard_too(tmp_path, make):
    for steps in ([1, 2, 3], [1, 2]):
        recorder = open_recorder(tmp_path, TelemetrySettings(), {}, first_step=1)
        record(recorder, make, steps)
        recorder.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/reward_mean")] == [1, 2]
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]


def test_rewinding_to_the_start_leaves_nothing(tmp_path, make):
    recorder = open_recorder(tmp_path, TelemetrySettings(tensorboard=False), {})
    record(recorder, make, [1])
    recorder.close()
    rewind(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (tmp_path / "groups.jsonl").read_bytes() == b""
    assert not list((tmp_path / "samples").glob("step_*"))


def test_tensorboard_reads_the_events(tmp_path, make):
    recorder = StepRecorder([TensorBoardSink(tmp_path)])
    record(recorder, make, [1, 2, 3])
    recorder.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"train/accuracy", "train/kl", "seconds/learn"} <= set(events.Tags()["scalars"])
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("train/grad_norm")] == [
        (step, 0.7) for step in (1, 2, 3)
    ]


def test_wandb_missing_names_the_extra_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pip install 'tinyr1v-ray\[wandb\]'"):
        open_recorder(tmp_path, TelemetrySettings(wandb_project="p"), {})
    assert not list(tmp_path.iterdir())


def test_wandb_gets_rows_by_step_under_the_runs_name(tmp_path, make, monkeypatch):
    calls = []
    run = SimpleNamespace(
        log=lambda row, step: calls.append((step, row["reward_mean"])), finish=lambda: calls.append("finish")
    )
    wandb = SimpleNamespace(init=lambda **arguments: calls.append(arguments) or run, Error=RuntimeError)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    recorder = StepRecorder([WandbSink(tmp_path / "ocr-1", "tiny", {"run": {"name": "ocr-1"}})])
    record(recorder, make, [1, 2])
    recorder.close()
    assert calls[1:] == [(1, 0.75), (2, 0.75), "finish"]
    assert calls[0]["project"] == "tiny" and calls[0]["id"] == "ocr-1" and calls[0]["resume"] == "allow"


def test_wandb_without_an_account_is_one_line(tmp_path, monkeypatch):
    def refuse(**arguments):
        raise RuntimeError("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse, Error=RuntimeError))
    with pytest.raises(
        ConfigError, match=r"does not start: No API key configured\. Use `wandb login` to log in; it needs"
    ):
        open_recorder(tmp_path, TelemetrySettings(wandb_project="p"), {})
    assert not list(tmp_path.iterdir())


def test_closing_reaches_every_sink(tmp_path):
    closed = []

    class Failing:
        def close(self):
            closed.append("failing")
            raise OSError("disk gone")

    recorder = StepRecorder([Failing(), SimpleNamespace(close=lambda: closed.append("last"))])
    with pytest.raises(OSError, match="disk gone"):
        recorder.close()
    assert closed == ["failing", "last"]
