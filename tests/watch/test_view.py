"""What `tinyr1v watch` reads out of a run's folder: under way, finished, failed, dead, old, damaged."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recorded_run import HOSTILE, record_run, training
from rich.console import Console

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.telemetry import board
from tinyr1v_ray.watch.terminal import screen
from tinyr1v_ray.watch.view import View, Watcher
from tinyr1v_ray.watch.waits import waits


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_run(tmp_path_factory.mktemp("finished") / "run", "run.max_staleness=1")


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def put(folder: Path, **changes: Any) -> None:
    """Change what the run says of this moment."""
    path = folder / "now.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def text_of(view: View) -> str:
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(screen(view))
    return console.export_text()


def test_a_finished_run_is_shown_from_its_records(finished: Path) -> None:
    view = Watcher(finished).look()
    assert (view.name, view.state, view.is_running, view.step, view.num_steps) == ("run", "finished", False, 6, 6)
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert view.curves["reward"] == [(row["step"], row["reward_mean"]) for row in rows]
    assert view.curves["tokens per answer"][-1] == (6, rows[-1]["length_mean"])
    assert sum(view.shares.values()) == pytest.approx(1, abs=0.03) and view.left_s is None
    assert view.samples_step == 6 and view.samples[0]["completions"][0]["text"] == HOSTILE
    assert view.num_in_flight == 0 and waits(view) == []


def test_what_the_terminal_shows_is_what_there_is(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(finished)]) == 0  # no terminal: once
    shown = capsys.readouterr().out
    for words in ("finished", "step 6/6", "reward", "tokens per answer", "learner: ", "How many <b>triangles</b>?"):
        assert words in shown
    assert "<script>document.title" in shown and re.search(r"images/[0-9a-f]{32}\.png", shown.replace("\n", ""))


def test_a_run_under_way_says_who_waits_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group 7 of a window of 6 never comes back: step 3 waits for it, and all others of the window are ready."""
    monkeypatch.setattr(board, "EVERY_S", 0.02)
    folder, seen = tmp_path / "run", []

    async def look_on() -> None:
        run, watcher = asyncio.create_task(training(folder, "run.max_staleness=1", stalled=7)), Watcher(folder)
        while not seen or dict(seen[-1].group_states) != {"learning": 1, "sampling": 1, "ready": 4}:
            assert not run.done(), run.exception()
            await asyncio.sleep(0.05)
            if (folder / "now.json").exists():
                seen.append(watcher.look())
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(asyncio.wait_for(look_on(), 60))
    view = seen[-1]
    assert view.is_running and view.step == 2 and view.num_steps == 6 and view.left_s is not None
    assert [(group.position, group.state) for group in view.flights] == [
        *((6, "learning"), (7, "sampling")),
        *((position, "ready") for position in (8, 9, 10, 11)),
    ]
    [sentence] = waits(view)
    assert re.fullmatch(
        r"the learner waits for group 7 \(math-0\), which an engine samples since \d s, for \d s", sentence
    )
    assert "6 groups in flight" in text_of(view) and sentence in text_of(view).replace("\n", " ")
    assert Watcher(folder).look().state == "ended: interrupted"


@pytest.mark.parametrize(
    ("doing", "states", "sentence"),
    [
        (
            "generate",
            ["learning", "scoring"],
            "the learner waits for group 1 (p1), which is being scored since 9 s, for 4 s",
        ),
        ("generate", ["sampling"], "the learner waits for group 0 (p0), which rollout-1 samples since 8 s, for 4 s"),
        ("generate", ["ready"], "the learner waits for groups, for 4 s"),
        ("learn", ["learning", "ready"], "the learner trains step 7, for 4 s; the engines wait for it since 8 s"),
        (
            "learn",
            ["learning", "sampling"],
            "the learner trains step 7, for 4 s; meanwhile 1 groups are sampled and scored",
        ),
        ("publish", [], "the engines take the weights of step 7, for 4 s"),
        ("evaluate", [], "held-out items are answered under new weights, for 4 s"),
        ("checkpoint", [], "the learner saves step 6, for 4 s"),
        ("starting learner", [], "starting learner, for 4 s"),
    ],
)
def test_each_wait_has_its_sentence(
    doing: str, states: list[str], sentence: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    groups = [[position, f"p{position}", state, now - 8 - position] for position, state in enumerate(states)]
    loads = {
        "rollout-0": {"num_groups": 2, "positions": [5], "is_up": False},
        "rollout-1": {"num_groups": 1, "positions": [0]},
    }
    put(folder, ended="", written=now, pid=os.getpid(), doing={doing: now - 4}, groups=groups, loads=loads)
    view = Watcher(folder).look()
    assert waits(view) == [sentence, "rollout-0 is starting; 2 groups wait for it"]
    assert waits(replace(view, doing={}, loads={})) == []


def test_a_dead_run_is_said_to_be_dead_and_shown_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    at = time.time() - 3
    here = {
        "ended": "",
        "doing": {"learn": at - 5},
        "groups": [[0, "p0", "sampling", at - 9]],
        "states": {"sampling": 1},
    }
    put(folder, **here, written=at, pid=ended.pid)
    assert main(["watch", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"dead: no sign of life since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))}; --resume" in shown
    assert "the learner trains step 7, for 5 s" in shown
    put(folder, **here, written=at, host="another", pid=1)
    assert Watcher(folder).look().is_running
    put(folder, **here, written=time.time() - 60, host="another", pid=1)
    assert Watcher(folder).look().state.startswith("dead: no sign of life since ")
    put(folder, host=platform.node(), pid=os.getpid())
    assert Watcher(folder).look().state.startswith("running, silent for 1 min ")


def test_a_run_that_failed_says_of_what(folder: Path) -> None:
    put(folder, ended="rollout-0 died 4 times")
    (folder / "events.jsonl").write_text(
        '{"time": 1000000.5, "text": "rollout-0 is replaced (3): out of memory"}\n{"ti'
    )
    view = Watcher(folder).look()
    assert view.state == "ended: rollout-0 died 4 times" and not view.is_running
    assert "rollout-0 is replaced (3): out of memory" in text_of(view)


def test_a_run_without_signs_of_life_is_shown_from_its_records_alone(folder: Path) -> None:
    for name in ("now.json", "events.jsonl"):
        (folder / name).unlink()
    assert Watcher(folder).look().state == "finished"
    (folder / "summary.json").unlink()
    assert Watcher(folder).look().state == "no now.json says where it stands"


def test_a_file_that_grows_is_read_on_and_one_that_was_cut_back_anew(folder: Path) -> None:
    path, watcher = folder / "metrics.jsonl", Watcher(folder)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:30])
    assert watcher.look().step == 4
    path.write_text("".join(lines))
    assert watcher.look().step == 6
    path.write_text("".join(lines[:2]))
    assert [step for step, _ in watcher.look().curves["reward"]] == [1, 2]


def test_of_a_recipe_the_training_under_way_is_shown(folder: Path) -> None:
    states = {"first": "done", "run": "running", "later": "waiting"}
    shutil.copytree(folder, folder.parent / "first")
    stages = [
        {"id": f"train/{name}/seed0", "kind": "train", "name": name, "folder": name, "state": state}
        for name, state in states.items()
    ]
    (folder.parent / "config.yaml").write_text("name: all\n")
    index = folder.parent / "recipe.json"
    index.write_text(json.dumps({"name": "all", "stages": stages, "models": []}))
    view = Watcher(folder.parent).look()
    assert view.name == "run" and view.stages == [(f"train/{name}/seed0", state) for name, state in states.items()]
    index.write_text(json.dumps({"name": "all", "stages": [stages[0], stages[2]], "models": []}))
    assert Watcher(folder.parent).look().name == "first"
    index.write_text(json.dumps({"name": "all", "stages": [], "models": []}))
    with pytest.raises(RunFolderError, match="has trained nothing yet"):
        Watcher(folder.parent).look()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "config.yaml").unlink(), "holds no config.yaml; the folder of a run has one"),
        (
            lambda folder: (folder / "environment.json").write_text('{"packages": {"tinyr1v-ray": "0.2.0"}}'),
            "is a run of version 0.2.0, and this is version 0.1.0",
        ),
        (lambda folder: (folder / "metrics.jsonl").write_text("{]\n"), "cannot be read (JSONDecodeError"),
        (lambda folder: (folder / "now.json").write_text('{"ended": "", "written": "x"}'), "cannot be read (TypeError"),
    ],
)
def test_bad_folders_are_refused_in_one_line(
    damage: Any, named: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    assert main(["watch", str(folder)]) == 2
    said = capsys.readouterr().err
    assert named in said and said.count("\n") == 1
