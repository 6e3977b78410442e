"""The command line explains itself quickly, and bad input costs one line and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.util import placement_group, remove_placement_group

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.jobs.train import job as training

pytestmark = pytest.mark.slow

TINYR1V = str(Path(sys.executable).with_name("tinyr1v"))
CONFIG = str(Path(__file__).parents[2] / "configs" / "miniature_ocr_cpu.yaml")


def tinyr1v(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TINYR1V, *arguments], capture_output=True, text=True, timeout=120, cwd=folder, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["miniature", "build", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = ("torch", "transformers", "vllm", "deepspeed", "ray", "numpy", "datasets", "pydantic")
    code = (
        "import sys, tinyr1v_ray.cli.main as m\n"
        f"try: m.main({arguments!r})\n"
        f"except SystemExit: pass\nprint([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("[]\n")
    assert "usage: tinyr1v" in done.stdout


def test_help_names_the_sub_commands() -> None:
    done = tinyr1v("--help")
    assert done.returncode == 0
    assert {"train", "miniature"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["algorithm.lipo.boots=0.5"], "unknown key algorithm.lipo.boots; .* did you mean algorithm.lipo.boost"),
        (["rollout.num_completions=1"], "num_completions is 1; .* at least 2"),
        (["run.num_steps=many"], "run.num_steps is 'many'"),
        (["learner.learning_rate=-1"], "learner.learning_rate is -1"),
        (["data.train=[missing.parquet]"], "missing.parquet"),
        (["model.path=/nowhere"], "model ./nowhere. is no folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_2_and_leaves_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["train", "--config", CONFIG, *arguments]) == 2
    said = capsys.readouterr().err
    assert re.match(f"tinyr1v: .*({message}).*\n$", said), said
    assert not ray.is_initialized() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND; see tinyr1v --help"),
        (["train"], "the following arguments are required: --config; see tinyr1v train --help"),
        (["plan", "--config", CONFIG, "--cluster", "-1x8xH100-80GB"], "argument --cluster: expected one argument; see"),
        (["miniature", "build", "--output", "x", "--steps", "0"], "argument --steps: 0 is too small; it must be at"),
    ],
)
def test_arguments_that_are_wrong_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"tinyr1v: {message}") and said.count("\n") == 1


@pytest.fixture(scope="module")
def four_cores() -> Iterator[None]:
    """This process is connected to a cluster, as the driver of a job is."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def folder(four_cores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rollout.max_tokens=380", "tinyr1v: .*prompt of .*"),
        ("rollout.num_engines=64", "tinyr1v: the run asks for .*64 engines.*, the cluster has 4; .*add nodes"),
    ],
)
def test_what_only_the_data_or_the_cluster_shows_is_one_line_too(
    override: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--config", CONFIG, override]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(message, said.splitlines()[-1]) and said.count("tinyr1v: ") == 1, said
    assert not (folder / "runs" / "miniature_ocr_cpu").exists()


def test_a_run_that_waits_says_for_what_and_one_that_fails_ends_with_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    another_runs = placement_group([{"CPU": 3}])
    assert another_runs.wait(30)
    try:
        timeouts = ["learner.start_timeout_s=1", "rollout.start_timeout_s=1", "learner.max_restarts=0"]
        assert main(["train", "--config", CONFIG, *timeouts]) == 1
    finally:
        remove_placement_group(another_runs)
    *lines, last = capsys.readouterr().err.splitlines()
    assert any("cluster: waiting for" in line and "CPUs, 1 are free now" in line for line in lines), lines
    assert re.match("tinyr1v: .*did not answer within", last), last


def test_flags_of_a_resumed_training_reach_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[training.TrainRequest] = []
    monkeypatch.setattr(training, "run_training", lambda request: requests.append(request) or "")
    for flags in ([], ["--resume"], ["--resume", "--allow-previous-checkpoint"]):
        assert main(["train", "--config", CONFIG, *flags]) == 0
    assert [(of.resume, of.allow_previous) for of in requests] == [(False, False), (True, False), (True, True)]
