"""A run's folder: all of it or nothing, and one configuration."""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata

import pytest

from tinyr1v_ray.config.base import load_settings, parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.telemetry import run_folder
from tinyr1v_ray.telemetry.run_folder import create_run_folder, describe_environment, locked_run, reopen_run_folder

COMMAND = ["tinyr1v", "train", "--config", "a.yaml"]


def settings(*overrides):
    return parse_settings(TrainConfig, {"run": {"name": "a"}, "data": {"train": ["miniature:ocr"]}}, overrides)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run_holds_its_configuration_and_environment(tmp_path):
    folder = create_run_folder(tmp_path / "runs" / "a", settings("learner.learning_rate=1e-5"), COMMAND)
    assert names_in(folder) == ["config.yaml", "environment.json"]
    assert load_settings(TrainConfig, folder / "config.yaml") == settings("learner.learning_rate=1e-5")
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["command"] == COMMAND and environment["python"] == platform.python_version()
    assert environment["packages"]["numpy"] == metadata.version("numpy")
    assert names_in(tmp_path / "runs") == ["a"]


def test_an_empty_folder_is_taken_over(tmp_path):
    (tmp_path / "a").mkdir()
    create_run_folder(tmp_path / "a", settings(), COMMAND)
    assert (tmp_path / "a" / "config.yaml").is_file()


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path):
    create_run_folder(tmp_path / "a", settings(), COMMAND)
    other = settings("algorithm.lipo.boost=0.5", "run.seed=3", "rollout.max_tokens=96")
    for function in (create_run_folder, reopen_run_folder):
        before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
        with pytest.raises(RunFolderError) as caught:
            function(tmp_path / "a", other, COMMAND)
        assert "algorithm.lipo.boost, rollout.max_tokens, run.seed" in str(caught.value)
        assert "\n" not in str(caught.value) and caught.value.exit_code == 2
        assert before == {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}


def test_many_differing_keys_are_counted(tmp_path):
    create_run_folder(tmp_path / "a", settings(), COMMAND)
    keys = ("boost", "decay", "min_quality", "reward_gap", "std_floor", "length_bound", "pairs")
    values = (0.5, "linear", 0, 0.2, 0, 99, "all")
    other = settings(*(f"algorithm.lipo.{key}={value}" for key, value in zip(keys, values, strict=True)))
    with pytest.raises(RunFolderError, match=r"algorithm\.lipo\.pairs and 2 more"):
        create_run_folder(tmp_path / "a", other, COMMAND)


def test_the_same_run_is_refused_and_resume_is_named(tmp_path):
    create_run_folder(tmp_path / "a", settings(), COMMAND)
    with pytest.raises(RunFolderError, match="--resume"):
        create_run_folder(tmp_path / "a", settings(), COMMAND)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="is no run"):
        create_run_folder(tmp_path / "a", settings(), COMMAND)
    with pytest.raises(RunFolderError, match="leave it out"):
        reopen_run_folder(tmp_path / "a", settings(), COMMAND)
    assert names_in(tmp_path / "a") == ["thesis.tex"]
    (tmp_path / "b").write_text("a file")
    with pytest.raises(RunFolderError, match="is no run"):
        create_run_folder(tmp_path / "b", settings(), COMMAND)


def test_a_failed_start_leaves_nothing(tmp_path, monkeypatch):
    def fail(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "replace_file", fail)
    with pytest.raises(OSError, match="No space left"):
        create_run_folder(tmp_path / "runs" / "a", settings(), COMMAND)
    assert names_in(tmp_path / "runs") == []


def test_a_folder_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match=r"cannot be made: .*file is no folder; .* correct run.folder"):
        create_run_folder(tmp_path / "file" / "runs" / "a", settings(), COMMAND)
    with pytest.raises(RunFolderError, match="cannot be made: File name too long"):
        create_run_folder(tmp_path / ("a" * 300) / "b", settings(), COMMAND)


def test_of_two_that_start_at_once_one_wins(tmp_path):
    folder = tmp_path / "a"
    loser = tmp_path / ".a.tmp"
    loser.mkdir()
    create_run_folder(folder, settings(), COMMAND)
    with pytest.raises(RunFolderError, match="just now"):
        run_folder._move_into_place(loser, folder)


def test_resuming_adds_to_the_environment_and_keeps_the_first_start(tmp_path):
    create_run_folder(tmp_path / "a", settings(), COMMAND)
    for _ in range(2):
        reopen_run_folder(tmp_path / "a", settings(), [*COMMAND, "--resume"])
    environment = json.loads((tmp_path / "a" / "environment.json").read_text())
    assert environment["command"] == COMMAND
    assert [start["command"][-1] for start in environment["resumed"]] == ["--resume"] * 2


def test_a_resumed_run_may_be_longer_and_be_watched_otherwise(tmp_path):
    create_run_folder(tmp_path / "a", settings(), COMMAND)
    longer = settings("run.num_steps=240", "telemetry.progress=false", "cluster.num_cpus=2")
    reopen_run_folder(tmp_path / "a", longer, COMMAND)
    assert load_settings(TrainConfig, tmp_path / "a" / "config.yaml") == longer
    assert names_in(tmp_path / "a") == ["config.yaml", "environment.json"]


def test_a_lost_environment_does_not_stop_a_run(tmp_path):
    create_run_folder(tmp_path / "a", settings(), COMMAND)
    (tmp_path / "a" / "environment.json").write_text("{torn")
    reopen_run_folder(tmp_path / "a", settings(), COMMAND)
    assert len(json.loads((tmp_path / "a" / "environment.json").read_text())["resumed"]) == 1


def test_the_commit_is_the_checkouts_and_nothing_elsewhere(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "package").mkdir()
    assert run_folder._git_commit(tmp_path / "package") == ""
    (tmp_path / "package" / "code.py").write_text("1\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert run_folder._git_commit(tmp_path / "package") == head
    (tmp_path / "package" / "code.py").write_text("2\n")
    assert run_folder._git_commit(tmp_path / "package") == head + "+changes"
    (tmp_path / "installed").mkdir()  # as an environment inside a checkout, which git does not track
    assert run_folder._git_commit(tmp_path / "installed") == ""
    assert describe_environment(COMMAND)["num_cpus"] >= 1


HOLD = """
import sys, time
from pathlib import Path
from tinyr1v_ray.telemetry.run_folder import locked_run
with locked_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_trains_in_a_folder_and_a_killed_one_lets_go(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match=f"in use by process {holder.pid} on "), locked_run(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locked_run(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    with locked_run(tmp_path):
        pass
