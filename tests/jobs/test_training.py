"""Whole runs with the real Ray, vLLM and DeepSpeed: deterministic resuming after SIGKILL, and deaths of actors."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from planning_checks import assert_memory_as_planned
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.config.base import parse_settings, read_yaml
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.jobs.train import job as training
from tinyr1v_ray.jobs.train.inputs import load_inputs

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

TINYR1V = str(Path(sys.executable).with_name("tinyr1v"))
CONFIG = str(Path(__file__).parents[2] / "configs" / "miniature_ocr_cpu.yaml")
SMALL = [
    "run.num_prompts_per_step=4",
    "rollout.num_completions=4",
    "rollout.max_tokens=48",
    "checkpoint.every_n_steps=2",
]
NAME = f"r{os.getpid()}"
VOLATILE = re.compile(r"seconds_|tokens_per_second")


class Run:
    """One `tinyr1v train` process in a folder of its own; resuming starts another."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder, self.settings = folder, [*SMALL, f"run.name={NAME}", f"run.folder={folder}", *settings]
        self.run_folder = folder / NAME
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> Run:
        command = [TINYR1V, "train", "--config", CONFIG, *flags, *self.settings]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        return self

    def finish(self, timeout_s: float = 400) -> Run:
        assert self.process is not None
        code = self.process.wait(timeout_s)
        assert code == 0, self.log.read_text()[-3000:]
        return self

    def wait_until(self, reached: Callable[[], bool], timeout_s: float = 300) -> None:
        deadline = time.monotonic() + timeout_s
        while not reached():
            assert self.process is not None and self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def wait_for_step(self, step: int) -> None:
        self.wait_until(lambda: any(row["step"] >= step for row in self.rows("metrics.jsonl")))

    def kill(self) -> None:
        """SIGKILL to the driver: every actor goes down with it (Ray's idle agents linger, so they are ended here)."""
        if self.process is None or self.process.poll() is not None:
            return
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        actors = [
            child for child in children if _command(child).startswith(("ray::rollout", "ray::scorer", "ray::learner"))
        ]
        _, alive = psutil.wait_procs(actors, timeout=60)
        assert not alive, f"actors outlived their driver: {alive}"
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def terminate(self) -> None:
        """SIGTERM, as a job server or Slurm sends it: one line, and nothing is left running."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        assert self.process.wait(60) == 130, self.log.read_text()[-3000:]
        said = self.log.read_text()
        assert said.splitlines()[-1].startswith("tinyr1v: interrupted; ") and "SIGTERM" not in said, said[-3000:]
        _, alive = psutil.wait_procs(children, timeout=60)
        assert children and not alive, f"left running: {alive}"

    def kill_actor(self, name: str) -> None:
        """SIGKILL to one actor of a kind."""
        assert self.process is not None
        processes = psutil.Process(self.process.pid).children(recursive=True)
        [actor] = [process for process in processes if f"ray::{name}" in _command(process)][:1]
        os.kill(actor.pid, signal.SIGKILL)

    def rows(self, name: str) -> list[dict[str, Any]]:
        path = self.run_folder / name
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def repeatable_metrics(self) -> list[dict[str, Any]]:
        rows = self.rows("metrics.jsonl")
        return [{key: value for key, value in row.items() if not VOLATILE.match(key)} for row in rows]

    def exported(self) -> dict[str, torch.Tensor]:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(self.run_folder / "export")
        assert model.dtype == torch.float32
        return dict(model.state_dict())


def _command(process: psutil.Process) -> str:
    """Command line of a process; empty when it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cluster.address=127.0.0.1:1"], "nobody answers at 127.0.0.1:1"),
        (["run.folder=file"], "file/r cannot be made: .*file is no folder"),
        (["run.folder=.", "run.name=file"], "file exists and is no run"),
        (["--resume"], "holds no config.yaml; --resume continues"),
        (["run.folder=.", "run.name=there"], "there holds a run with other values"),
        (["model.path=nowhere"], "model 'nowhere' is no folder"),
        (["model.path=there"], "model folder .*there has no configuration"),
        (["data.train=[none.parquet]"], "data file none.parquet does not exist"),
        (["data.evaluation=[file]"], "data file file ends in ''"),
        (["data.train=['miniature:orc']"], "miniature has no domain 'orc'"),
        (["reward.function=nothing"], "reward.function is 'nothing'; it is written package.module:function"),
        (["reward.function=no_such_module:f"], "reward.function no_such_module:f cannot be imported"),
        (["algorithm.function=no_such_module:f"], "algorithm.function no_such_module:f cannot be imported"),
        (["weights.folder=/nowhere"], "weights.folder /nowhere: no such folder; .* name another one"),
        (["telemetry.wandb_project=mine"], "wandb is not installed"),
    ],
)
def test_what_can_be_told_at_once_is_told_before_ray_and_leaves_nothing(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("Ray or the reading of data was started")

    for name in ("connected", "load_inputs"):
        monkeypatch.setattr(training, name, started)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("there").mkdir()
    Path("there/config.yaml").write_text("run: {name: another}\n")
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", "--config", CONFIG, "run.name=r", *words]) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed) and printed.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@dataclass(frozen=True)
class Twins:
    """Two deterministic runs with the same settings: one left alone; one killed, stopped while it starts again, and
    then resumed. `said_when_resumed` is what this one printed after the kill.
    """

    whole: Run
    killed: Run
    said_when_resumed: str


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """Both side by side: in each, engine and learner take turns."""
    settings = ["run.num_steps=4", "rollout.deterministic=true", "checkpoint.every_n_steps=1"]
    settings += ["algorithm.name=quality_first", "algorithm.quality_first.rate=0.3"]
    settings += ["evaluation.num_items=8", "evaluation.every_n_steps=2", "evaluation.num_slice_items=8"]
    with ExitStack() as stack:
        whole, killed = (Run(tmp_path_factory.mktemp("twin"), *settings) for _ in range(2))
        stack.callback(whole.kill)
        stack.callback(killed.kill)
        whole.start()
        killed.start().wait_for_step(2)
        killed.kill()  # while the checkpoint of step 2 is being written, or just after
        said = killed.log.read_text()
        killed.start("--resume").wait_until(lambda: "starting learner" in killed.log.read_text()[len(said) :])
        killed.terminate()
        killed.start("--resume").finish()
        yield Twins(whole.finish(), killed, killed.log.read_text()[len(said) :])


@pytest.fixture(scope="module")
def bereaved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run with two engines and two learner ranks that loses one actor of each kind."""
    run = Run(
        tmp_path_factory.mktemp("bereaved"),
        *["run.num_steps=8", "run.max_staleness=2", "evaluation.num_items=0"],
        *["rollout.num_engines=2", "rollout.num_cpus_per_engine=0.4", "reward.num_cpus_per_scorer=0.1"],
        *["learner.num_ranks=2", "learner.num_cpus_per_rank=0.4", "telemetry.tensorboard=false"],
    )
    with ExitStack() as stack:
        stack.callback(run.kill)
        run.start().wait_for_step(1)
        run.kill_actor("rollout")
        run.kill_actor("scorer")
        run.wait_for_step(4)
        run.kill_actor("learner")
        yield run.finish()


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(twins: Twins) -> None:
    whole, killed = twins.whole, twins.killed
    assert [row["step"] for row in whole.rows("metrics.jsonl")] == [1, 2, 3, 4]
    assert killed.rows("groups.jsonl") == whole.rows("groups.jsonl")
    assert killed.repeatable_metrics() == whole.repeatable_metrics()
    assert any(row["grad_norm"] > 0 for row in whole.rows("metrics.jsonl"))
    assert len({row["beta"] for row in whole.rows("metrics.jsonl")}) > 1, "the controlled weight did not move"
    resumed_weights = killed.exported()
    for name, tensor in whole.exported().items():
        assert torch.equal(tensor, resumed_weights[name]), name
    assert "step 4/4" in twins.said_when_resumed and "step 1/4" not in twins.said_when_resumed, "it started over"
    AutoProcessor.from_pretrained(whole.run_folder / "export")
    summary = json.loads((whole.run_folder / "summary.json").read_text())
    assert summary["before"][0]["num_items"] == summary["after"][0]["num_items"] == 8
    assert not list(Path("/dev/shm").glob(f"tinyr1v-{NAME}-*")), "weights were left in memory"
    for run in (whole, killed):
        assert main(["verify", str(run.run_folder)]) == 0


def test_looks_at_held_out_items_and_the_best_step_are_those_of_an_uninterrupted_run(twins: Twins) -> None:
    looks = twins.whole.rows("evaluation/steps.jsonl")
    assert [row["step"] for row in looks] == [2, 4] and twins.killed.rows("evaluation/steps.jsonl") == looks
    best = max(looks, key=lambda row: (row["accuracy"], -row["tokens"], -row["step"]))
    for run in (twins.whole, twins.killed):
        assert json.loads((run.run_folder / "best" / "best.json").read_text())["step"] == best["step"]
        kept = sorted(path.name for path in (run.run_folder / "best").iterdir())
        assert kept == ["best.json", f"step-{best['step']:06d}"]


def test_a_run_survives_the_death_of_each_kind_of_actor(bereaved: Run) -> None:
    """Groups are trained once each, in the order of the data, within the staleness bound."""
    metrics, log = bereaved.rows("metrics.jsonl"), bereaved.log.read_text()
    assert [row["step"] for row in metrics] == list(range(1, 9))
    config = parse_settings(TrainConfig, read_yaml(bereaved.run_folder / "config.yaml"))
    in_order = [(prompt.epoch, prompt.prompt_id) for prompt in islice(load_inputs(config).train.iterate(0), 8 * 4)]
    assert [(row["epoch"], row["prompt_id"]) for row in bereaved.rows("groups.jsonl")] == in_order
    assert max(row["staleness_max"] for row in metrics) <= 2
    assert re.search(r"rollout-\d is replaced", log) and re.search(r"scorer-\d is replaced", log)
    assert "attempt 1 ended" in log and log.count("step 1/8") == 1, "the learner's death costs an attempt, not the run"
    assert "Traceback" not in log
    assert main(["verify", str(bereaved.run_folder)]) == 0


def test_every_actor_takes_the_memory_that_was_planned(twins: Twins, bereaved: Run) -> None:
    assert_memory_as_planned(twins.whole.run_folder)
    assert_memory_as_planned(bereaved.run_folder)
