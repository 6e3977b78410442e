"""The shell scripts, run with stand-ins for Slurm, Ray and tinyr1v that record what is asked of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
STAND_INS = {
    # Lists the hosts of an allocation of three.
    "scontrol": 'printf "node%d\\n" 1 2 3',
    "hostname": "echo 10.0.0.1 192.168.0.1",
    # Runs a command once per task, hands signals on, and ends with the first task that ends, as the flags ask.
    "srun": """
        tasks=1
        while [[ $1 == --* ]]; do [[ $1 == --ntasks=* ]] && tasks=${1#*=}; shift; done
        pids=()
        trap 'kill -TERM "${pids[@]}" 2>/dev/null; wait; exit 143' TERM
        for ((task = 0; task < tasks; task++)); do SLURM_PROCID=$task "$@" & pids+=($!); done
        status=0; wait -n || status=$?
        kill -TERM "${pids[@]}" 2>/dev/null; wait; exit "$status"
    """,
    # Lives until it is told to stop, and records both.
    "ray": """
        [[ -n ${RAY_BREAKS:-} && "$*" == *--head* ]] && { echo "port in use"; exit 1; }
        trap 'echo "stopped $*" >>"$RECORD"; exit 0' TERM
        echo "Ray runtime started."
        echo "mode=$RAY_AUTH_MODE token=${#RAY_AUTH_TOKEN} address=${RAY_ADDRESS:-none} started $*" >>"$RECORD"
        while :; do sleep 0.05; done
    """,
    # Counts the nodes of the cluster.
    "python": 'cat >/dev/null; grep -c " started start" "$RECORD"',
    "tinyr1v": """
        echo "tinyr1v at ${RAY_ADDRESS:-none}: $*" >>"$RECORD"
        trap 'echo "tinyr1v told to stop" >>"$RECORD"; exit 130' TERM
        for ((i = 0; i < ${DRIVER_TENTHS:-0}; i++)); do sleep 0.1; done
        exit "${DRIVER_STATUS:-0}"
    """,
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Stand-ins on the PATH; `RECORD` is what they write to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in STAND_INS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    (tmp_path / "record").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    return {
        **kept,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "RECORD": str(tmp_path / "record"),
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_SUBMIT_DIR": str(LAUNCH.parent),
        "RAY_TMP": str(tmp_path / "ray"),
    }


def record(environment: dict[str, str]) -> list[str]:
    return Path(environment["RECORD"]).read_text().splitlines()


def start_slurm(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    script = str(LAUNCH / "slurm.sh")
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", script, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)


def no_ray_is_left(environment: dict[str, str]) -> bool:
    lines = record(environment)
    started = sum(" started start" in line for line in lines)
    return started == sum(line.startswith("stopped start") for line in lines) > 0


@pytest.fixture(autouse=True)
def _slurm_jobs_logs() -> Iterator[None]:
    """The Slurm script's own folder for Ray is under /tmp; its log goes with the test."""
    yield
    for log in Path("/tmp").glob("ray-1234567.*.log"):
        log.unlink()


@pytest.mark.parametrize("status", [0, 2])
def test_slurm_brings_ray_up_on_every_node_and_down_at_the_end(environment: dict[str, str], status: int) -> None:
    arguments = ["train", "--config", "a b.yaml", "run.folder=/shared/runs"]
    script = start_slurm({**environment, "DRIVER_STATUS": str(status)}, *arguments)
    _, said = script.communicate(timeout=60)
    assert script.returncode == status, said
    lines = record(environment)
    heads = [line for line in lines if "started start" in line and "--head" in line]
    workers = [line for line in lines if "started start" in line and "--address 10.0.0.1:24567" in line]
    assert len(heads) == 1 and len(workers) == 2
    assert "--node-ip-address 10.0.0.1 --port 24567 --dashboard-host 127.0.0.1" in heads[0]
    assert all(line.startswith("mode=token token=64 address=none") for line in heads + workers)
    assert "tinyr1v at 10.0.0.1:24567: train --config a b.yaml run.folder=/shared/runs" in lines
    assert lines.index(next(line for line in lines if line.startswith("tinyr1v at"))) == 3, "it waits for all nodes"
    assert no_ray_is_left(environment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_slurm_takes_ray_down_when_it_is_told_to_stop(environment: dict[str, str], number: signal.Signals) -> None:
    script = start_slurm({**environment, "DRIVER_TENTHS": "600"}, "train")
    deadline = time.monotonic() + 30
    while not any(line.startswith("tinyr1v at") for line in record(environment)) and time.monotonic() < deadline:
        time.sleep(0.05)
    script.send_signal(number)
    _, said = script.communicate(timeout=60)
    assert script.returncode == 128 + number, said
    assert "tinyr1v told to stop" in record(environment)
    assert no_ray_is_left(environment)


def test_a_head_that_does_not_start_ends_the_job_with_its_reason(environment: dict[str, str]) -> None:
    script = start_slurm({**environment, "RAY_BREAKS": "yes"}, "train")
    _, said = script.communicate(timeout=60)
    assert script.returncode == 1 and "ray start ended: port in use" in said
    assert not any(line.startswith("tinyr1v") for line in record(environment))


def test_a_host_that_never_comes_ends_the_wait(environment: dict[str, str]) -> None:
    settings = {"NODE_RANK": "0", "NUM_NODES": "2", "HEAD_ADDRESS": "10.0.0.1", "WAIT_S": "1"}
    done = subprocess.run(
        ["bash", str(LAUNCH / "multi_host.sh"), "train"],
        env={**environment, **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "1 of 2 hosts joined within 1 s" in done.stderr
    assert no_ray_is_left(environment)


@pytest.mark.parametrize(
    ("script", "missing"),
    [("multi_host.sh", "NODE_RANK"), ("slurm.sh", "SLURM_JOB_ID"), ("ray_job.sh", "RAY_API_SERVER_ADDRESS")],
)
def test_what_is_missing_is_named(environment: dict[str, str], script: str, missing: str) -> None:
    bare = {name: value for name, value in environment.items() if name != missing}
    done = subprocess.run(["bash", str(LAUNCH / script), "train"], env=bare, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0 and missing in done.stderr and record(environment) == []


def test_ray_job_hands_everything_to_submit(environment: dict[str, str]) -> None:
    settings = {"RAY_API_SERVER_ADDRESS": "http://head:8265"}
    subprocess.run(
        ["bash", str(LAUNCH / "ray_job.sh"), "train", "run.name=a b"], env={**environment, **settings}, check=True
    )
    assert record(environment) == ["tinyr1v at none: submit --address http://head:8265 train run.name=a b"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_script_runs_one_command_and_holds_no_setting_of_a_run(script: Path) -> None:
    text = script.read_text()
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    runs_it = len(re.findall(r"^\s*(?:exec )?tinyr1v ", code, re.MULTILINE)) + code.count('multi_host.sh" "$@"')
    assert runs_it == 1
    assert not re.search(r"\b(algorithm|learner|rollout|model|data|reward)\.\w+=", code)
    assert text.startswith("#!/usr/bin/env bash") and "set -euo pipefail" in code and os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, str(script)], check=True)
