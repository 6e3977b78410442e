"""Jobs on real Ray heads, with token authentication on and off; what is refused before anything starts.

What the jobs run is a stand-in package that lies in the packed tree: that it runs at all proves that the packed code
is what a job runs, and a job then lasts as long as a test needs.
"""

from __future__ import annotations

import http.server
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.cli.submit import _placements
from tinyr1v_ray.cluster import submission
from tinyr1v_ray.cluster.working_tree import check_size, largest_folder, read_working_tree, write_archive
from tinyr1v_ray.config.kinds import read_config
from tinyr1v_ray.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CLI = [sys.executable, "-m", "tinyr1v_ray.cli.main"]
ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests-0123456789abcdef"
STAND_IN = """
import os, sys, time
print("packed code runs", sys.argv[1:], os.environ.get("GREETING"), sorted(os.listdir()), flush=True)
for word in sys.argv:
    if word.startswith("run.seed="):
        seed = int(word.partition("=")[2])
        if seed >= 1000:
            time.sleep(seed)
        sys.exit(seed)
"""
SMALL = """
run: {name: small}
data: {train: ['miniature:ocr']}
rollout: {num_cpus_per_engine: 0.4}
learner: {num_cpus_per_rank: 0.4}
"""
SHARED = {key: settings for key, settings in yaml.safe_load(SMALL).items() if key != "run"}
RECIPE = f"""# with this comment, the folder of configurations is the largest of those packed
name: whole
train: {json.dumps(SHARED)}
trainings: {{ocr: {{}}}}
evaluate: {{benchmarks: ['miniature:ocr'], engine: {{num_cpus: 0.4}}}}
"""
EVALUATION = """
benchmarks: ['miniature:ocr']
engine: {num_engines: 9, num_cpus: 0.4}
"""
MERGE = """
base: miniature
experts: [math, ocr]
"""
JOINS = """
from tinyr1v_ray.config.cluster import ClusterSettings
from tinyr1v_ray.cluster.connection import connected, resources
with connected(ClusterSettings(num_cpus=7)):
    print("CPUs of the job's cluster:", resources()[0]["CPU"])
"""


@dataclass(frozen=True)
class Head:
    """A Ray head on this machine, and the environment of those who may use it."""

    address: str
    environment: dict[str, str]

    def cli(self, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CLI, *arguments], cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=90
        )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def environment_without_ray(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start_head(folder: Path, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    gcs, dashboard, agent, agent_grpc, client, metrics = free_ports(6)
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--port", str(gcs), "--dashboard-port", str(dashboard), "--dashboard-host", "127.0.0.1"]
    command += ["--dashboard-agent-listen-port", str(agent), "--dashboard-agent-grpc-port", str(agent_grpc)]
    command += ["--ray-client-server-port", str(client), "--metrics-export-port", str(metrics)]
    command += ["--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--object-store-memory", str(80 * 2**20)]
    command += ["--temp-dir", str(folder / "ray")]
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    return head, f"http://127.0.0.1:{dashboard}"


def wait_until_it_answers(head: subprocess.Popen[bytes], address: str, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1).close()
            return
        except OSError:
            assert head.poll() is None and time.monotonic() < deadline, (folder / "head.log").read_text()
            time.sleep(0.2)


TOKEN_ON = pytest.mark.parametrize("head", ["token on"], indirect=True)


@pytest.fixture(scope="module", params=["token off", "token on"])
def head(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = Path("/tmp") / f"tinyr1v-{os.getpid()}-{request.param[-2:]}"  # a socket's path is at most 107 bytes
    folder.mkdir()
    home = tmp_path_factory.mktemp("home")
    environment = environment_without_ray(home)
    if request.param == "token on":
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    else:
        environment |= {"RAY_AUTH_MODE": "disabled"}
    process, address = start_head(folder, environment)
    try:
        wait_until_it_answers(process, address, folder)
        yield Head(address, environment)
    finally:
        process.terminate()  # it takes its own down with it
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working tree whose `tinyr1v_ray` is the stand-in, beside what must not be packed."""
    root = tmp_path_factory.mktemp("project")
    files = {
        "tinyr1v_ray/__init__.py": "",
        "tinyr1v_ray/cli/__init__.py": "",
        "tinyr1v_ray/cli/main.py": STAND_IN,
        "configs/small.yaml": SMALL,
        "configs/recipe_small.yaml": RECIPE,
        "configs/evaluate.yaml": EVALUATION,
        "configs/merge.yaml": MERGE,
        ".venv/large": "x" * 1000,
        "runs/old/checkpoint": "x" * 1000,
        "ignored/data": "x" * 1000,
        ".gitignore": "ignored/\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def submit(head: Head, project: Path, *rest: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = ["submit", "--address", head.address, "--python", sys.executable, "--tree", str(project), *options]
    return head.cli(*command, "train", "--config", "configs/small.yaml", "run.folder=/tmp/no-such-runs", *rest)


def job_id_in(text: str) -> str:
    return next(word for word in text.split() if word.startswith("tinyr1v-train-"))


@TOKEN_ON
def test_a_job_runs_the_packed_code_and_its_exit_code_comes_back(head: Head, project: Path) -> None:
    done = submit(head, project, "run.seed=2", options=["--env", "GREETING=hello"])
    assert done.returncode == 2 and not done.stderr, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("packed code runs"))
    assert "'train', '--config', 'configs/small.yaml'" in line and "hello" in line
    assert line.endswith("['.gitignore', 'configs', 'tinyr1v_ray']")
    assert f"job {job_id_in(done.stdout)} failed after" in done.stdout


@TOKEN_ON
def test_an_interrupt_leaves_the_job_running_and_it_can_be_found_and_stopped(head: Head, project: Path) -> None:
    command = [*CLI, "submit", "--address", head.address, "--python", sys.executable, "--tree", str(project)]
    command += ["train", "--config", "configs/small.yaml", "run.folder=/tmp/no-such-runs", "run.seed=1000"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=head.environment, stdout=pipe, stderr=pipe, text=True) as following:
        assert following.stdout is not None and following.stderr is not None
        deadline = threading.Timer(120, following.kill)
        deadline.start()
        try:
            job_id = job_id_in(following.stdout.readline())
            while "packed code runs" not in following.stdout.readline():
                assert following.poll() is None
            following.send_signal(signal.SIGINT)
            assert following.wait(30) == 130
            said = following.stderr.read()
        finally:
            deadline.cancel()
            following.kill()
    assert f"tinyr1v jobs logs --address {head.address} --follow {job_id}" in said and "Traceback" not in said

    listed = head.cli("jobs", "list", "--address", head.address)
    assert any(job_id in line and "running" in line for line in listed.stdout.splitlines()), listed.stdout
    assert "packed code runs" in head.cli("jobs", "logs", "--address", head.address, job_id).stdout
    assert f"job {job_id} stopped" in head.cli("jobs", "stop", "--address", head.address, job_id).stdout
    status = head.cli("jobs", "status", "--address", head.address, job_id)
    assert status.returncode == 1 and "stopped after" in status.stdout


@pytest.mark.parametrize("head", ["token off"], indirect=True)
def test_a_driver_inside_a_job_joins_the_jobs_cluster(head: Head) -> None:
    """Though its settings say how many cores a cluster started here would get, which Ray refuses when joining."""
    script = f"""
import shlex, sys
from tinyr1v_ray.cluster import submission
submission.JobRequest.entrypoint = property(lambda self: shlex.join([sys.executable, "-c", {JOINS!r}]))
cluster = submission.JobCluster({head.address!r})
state = cluster.follow(cluster.submit(submission.JobRequest(["train"])), print)
print(state.status)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=head.environment, capture_output=True, text=True, timeout=90, cwd=ROOT
    )
    assert "CPUs of the job's cluster: 1.0" in done.stdout and "SUCCEEDED" in done.stdout, done.stdout + done.stderr


@TOKEN_ON
def test_who_has_no_token_or_a_wrong_one_is_told_what_to_do(head: Head, tmp_path: Path) -> None:
    bare = {name: value for name, value in head.environment.items() if not name.startswith("RAY_")}
    bare["HOME"] = str(tmp_path)
    for token, seen in (({}, "got none"), ({"RAY_AUTH_TOKEN": "b" * 40}, "refuses the token")):
        refused = replace(head, environment=bare | token).cli("jobs", "list", "--address", head.address)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
        assert seen in refused.stderr and "RAY_AUTH_TOKEN_PATH" in refused.stderr
        assert "b" * 40 not in refused.stderr
    # A token that lies ready is used without a word, as ray.init does.
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    assert replace(head, environment=bare).cli("jobs", "list", "--address", head.address).returncode == 0


@TOKEN_ON
def test_a_cluster_that_is_too_small_is_said_before_a_job_starts(head: Head, project: Path) -> None:
    done = submit(head, project, "rollout.num_engines=9")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "asks for 4.1 CPUs" in done.stderr and "the cluster has 1" in done.stderr


def test_a_cluster_that_grows_is_not_asked_for_room(project: Path) -> None:
    configs = project / "configs"
    for name, roles in (
        ("small", [{"learner", "rollout", "scorer"}]),
        ("recipe_small", [{"learner", "rollout", "scorer"}, {"rollout"}, {"rollout"}]),
        ("evaluate", [{"rollout"}]),
    ):
        placements = _placements(read_config(configs / f"{name}.yaml", []))
        assert [{actor.role for actor in placement.actors} for placement in placements] == roles
        assert _placements(read_config(configs / f"{name}.yaml", ["cluster.autoscaling=true"])) == []
    assert _placements(read_config(configs / "merge.yaml", ["output=/x"])) == []


@TOKEN_ON
def test_a_job_that_does_not_exist(head: Head) -> None:
    done = head.cli("jobs", "stop", "--address", head.address, "no-such-job")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "job no-such-job does not exist" in done.stderr and "tinyr1v jobs list" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jobs", "list", "--address", "127.0.0.1:8265"], "has no scheme"),
        (["jobs", "list", "--address", "ray://127.0.0.1:10001"], "has the scheme ray"),
        (["jobs", "list", "--address", "http://127.0.0.1:1"], "nobody answers at http://127.0.0.1:1"),
        (["submit", "--address", "{ray-less}", "train", "{config}", "run.folder=/x"], "does not answer as a Ray dash"),
        (["jobs", "list", "--address", "{json}"], "does not answer as a Ray dashboard"),
        (["jobs", "logs", "--address", "{json}", "JOB"], "does not answer as a Ray dashboard"),
        (["jobs", "status", "--address", "{json}", "JOB"], "does not answer as a Ray dashboard"),
        (["jobs", "stop", "--address", "{json}", "JOB"], "does not answer as a Ray dashboard"),
        (["submit", "--address", "http://h:1", "train", "{config}"], "run.folder is not set for a job"),
        (["submit", "--address", "http://h:1", "{config}", "run.folder=runs"], "run.folder is runs for a job"),
        (["submit", "--address", "http://h:1", "train", "{config}", "run.foldr=/x"], "unknown key run.foldr"),
        (["submit", "--address", "http://h:1", "train", "--config", "no.yaml"], "config file no.yaml does not exist"),
        (["submit", "--address", "http://h:1", "train", "--config", "ignored/a.yaml"], "is not among the packed files"),
        (["submit", "--address", "http://h:1", "train", "--config", "miniature_ocr_cpu"], "run.folder is not set"),
        (["submit", "--address", "http://h:1", "--config", "recipe_miniature_cpu"], "folder is not set for a job"),
        (["submit", "--address", "http://h:1", "--env", "HF_TOKEN=x", "train", "{config}"], "looks like a secret"),
        (["submit", "--address", "http://h:1", "--limit-mib", "0.0001", "train", "{config}"], "most in folder configs"),
        (["submit", "--address", "http://h:1", "miniature"], "a job is one of run, train, merge"),
        (["submit", "--address", "http://h:1", "--config", "configs/recipe_small.yaml"], "folder is not set for a job"),
        (["submit", "--address", "http://h:1", "{recipe}", "folder=/x", "train.run.stps=1"], "unknown key run.stps"),
        (
            ["submit", "--address", "http://h:1", "{recipe}", "folder=/x", "evaluate.sampling.seeed=1"],
            "unknown key sampling.seeed",
        ),
        (
            ["submit", "--address", "http://h:1", "--config", "configs/merge.yaml", "output=/x", "job.devise=cuda"],
            "unknown key job.devise",
        ),
        (
            ["submit", "--address", "http://h:1", "merge", "--config", "configs/merge.yaml", "--output", "merged"],
            "output is merged for a job",
        ),
        (
            [
                "submit",
                "--address",
                "http://h:1",
                "evaluate",
                "--config",
                "configs/evaluate.yaml",
                "--output=/x",
                "output=~/x",
            ],
            "output is ~/x for a job",
        ),
        (
            ["submit", "--address", "http://h:1", "--config", "configs/evaluate.yaml", "output=/x", "num_itms=1"],
            "unknown key num_itms",
        ),
        (["submit", "--address", "http://h:1", "train", "{config}", "run.folder=/x", "a=[1"], "cannot be applied"),
        (["submit", "--image", "i", "--installed", "--address", "http://h:1", "train", "{config}"], "both --image and"),
        (["submit", "--image", "i", "--address", "http://h:1", "train", "{config}"], "run.folder is not set for a job"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], said: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(project))
    (project / "ignored" / "a.yaml").write_text("{}")
    words = [
        word
        for argument in arguments
        for word in argument.replace("{config}", "--config configs/small.yaml")
        .replace("{recipe}", "--config configs/recipe_small.yaml")
        .split()
    ]
    with web_server(Silent) as address, web_server(Json) as json_address:
        assert main([word.replace("{ray-less}", address).replace("{json}", json_address) for word in words]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "code"),
    [(["--image", "registry/tinyr1v:cpu"], {"image_uri": "registry/tinyr1v:cpu"}), (["--installed"], {})],
)
def test_code_that_is_on_the_cluster_is_used_and_nothing_packed(
    option: list[str],
    code: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As Ray's client is told; the config is read where the job runs, and so is not looked for here."""
    asked: list[dict[str, Any]] = []

    class Client:
        def __init__(self, address: str) -> None:
            self.address = address

        def submit_job(self, **request: Any) -> str:
            asked.append(request)
            return str(request["submission_id"])

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(submission, "JobSubmissionClient", Client)
    with web_server(Silent) as address:
        command = ["train", "--config", "/opt/configs/a.yaml", "run.folder=/shared/runs"]
        assert main(["submit", "--address", address, "--no-follow", *option, *command]) == 0
    [request] = asked
    assert request["entrypoint"] == shlex.join(["python", "-m", "tinyr1v_ray.cli.main", *command])
    assert {name: of for name, of in request["runtime_env"].items() if name != "env_vars"} == code
    assert "packed" not in (said := capsys.readouterr().out) and f"job {request['submission_id']} submitted" in said


class Silent(http.server.BaseHTTPRequestHandler):
    """Answers 501 to all, and logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


class Json(Silent):
    """Answers an empty JSON list to all."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"[]")


@contextmanager
def web_server(handler: type[Silent]) -> Iterator[str]:
    """A web server that is not Ray's."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_packed_files_are_those_that_git_would_take(project: Path) -> None:
    tree = read_working_tree(project)
    names = [str(name) for name in tree.files]
    assert names == [
        ".gitignore",
        *(f"configs/{n}.yaml" for n in ("evaluate", "merge", "recipe_small", "small")),
        *(f"tinyr1v_ray/{n}" for n in ("__init__.py", "cli/__init__.py", "cli/main.py")),
    ]
    assert tree.num_bytes == sum((project / name).stat().st_size for name in names)


def test_a_tree_without_git_leaves_out_the_same_folders_and_links_that_lead_outside(tmp_path: Path) -> None:
    for name in ("a.py", ".venv/x", "runs/x", "deep/.cache/x", "deep/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "outside").symlink_to("/etc/hostname")
    (tmp_path / "inside").symlink_to("a.py")
    (tmp_path / "broken").symlink_to("nothing")
    assert [str(name) for name in read_working_tree(tmp_path).files] == ["a.py", "deep/b.py", "inside"]
    for name in ("a.py", "deep/b.py", "inside"):
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match="holds no files to pack"):
        read_working_tree(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        read_working_tree(tmp_path / "a.py")


def test_the_size_that_counts_is_exact_and_the_culprit_is_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "large").write_bytes(bytes(2**20))
    tree = read_working_tree(tmp_path)
    check_size(tree, 1.0)
    (tmp_path / "one").write_bytes(b"1")
    with pytest.raises(ConfigError, match=r"most in folder data/images \(1.0 MiB\); the limit is 1 MiB"):
        check_size(read_working_tree(tmp_path), 1.0)


def test_the_largest_folder_of_an_even_tree_is_its_largest_part() -> None:
    files = [PurePosixPath(name) for name in ("a/x", "b/x", "c/x")]
    assert largest_folder(files, [3, 4, 3]) == (PurePosixPath("b"), 4)
    assert largest_folder([PurePosixPath("x")], [3]) == (PurePosixPath("."), 3)


def test_an_archive_depends_on_contents_alone(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "run.sh").write_text("exit 0")
    (tree / "run.sh").chmod(0o755)
    archives = [tmp_path / "first.zip", tmp_path / "second.zip"]
    for age, archive in enumerate(archives):
        os.utime(tree / "run.sh", (age * 1e6, age * 1e6))
        write_archive(read_working_tree(tree), archive)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(archives[0]), str(tmp_path / "out")], check=True)
    assert (tmp_path / "out" / "run.sh").read_text() == "exit 0"
