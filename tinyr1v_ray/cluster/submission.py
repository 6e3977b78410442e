"""Jobs on a running Ray cluster: submit, follow, list, stop. Over Ray's job SDK, which speaks HTTP to the dashboard."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from ray.util.state import list_nodes

from tinyr1v_ray.cluster.placement import Placement, check_fits
from tinyr1v_ray.cluster.working_tree import WorkingTree, write_archive
from tinyr1v_ray.errors import ConfigError, DeadlineError, PlacementError

ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED})
_CONNECT_TIMEOUT_S = 5.0
_AGENT_TIMEOUT_S = 60.0
_POLL_S = 0.5
_MAX_RECONNECTIONS = 20
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that Ray's client obeys before the address it is given."""
_NARRATING = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
"""Loggers of Ray's client that report each upload and each closed connection."""


@dataclass(frozen=True)
class JobRequest:
    """A `tinyr1v` command and what it runs in.

    `tree` is packed and becomes the job's working folder; `image` names a container image that has the code instead;
    with neither, the code is what the cluster's nodes have installed. `python` is the interpreter on the cluster.
    """

    command: Sequence[str]
    tree: WorkingTree | None = None
    image: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str = "python"
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        """Shell command of the job; `-m` puts the working folder first, so that the packed code is what runs.

        >>> JobRequest(["train", "--config", "a b.yaml"]).entrypoint
        "python -m tinyr1v_ray.cli.main train --config 'a b.yaml'"
        """
        return shlex.join([self.python, "-m", "tinyr1v_ray.cli.main", *self.command])


@dataclass(frozen=True)
class JobState:
    """What is told of a job."""

    job_id: str
    status: str
    entrypoint: str
    message: str
    started_s: float | None
    ended_s: float | None
    exit_code: int | None

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ENDED

    @property
    def elapsed_s(self) -> float | None:
        """Seconds from start to end, or until now."""
        return None if self.started_s is None else (self.ended_s or time.time()) - self.started_s


def check_address(address: str) -> str:
    """The address without a closing slash; raises ConfigError unless it is http(s)://HOST:PORT.

    >>> check_address("http://127.0.0.1:8265/")
    'http://127.0.0.1:8265'
    """
    rule = "the address is that of Ray's dashboard, with its scheme"
    if "://" not in address:
        raise ConfigError(f"--address {address!r} has no scheme; {rule}; write http://{address or 'HOST:8265'}")
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"--address {address!r}: {error}; {rule}; write http://HOST:8265") from error
    if parts.scheme not in ("http", "https"):
        raise ConfigError(f"--address {address!r} has the scheme {parts.scheme}; {rule}; write http://HOST:8265")
    if not host or parts.path.strip("/") or parts.query:
        raise ConfigError(f"--address {address!r} is not scheme, host and port; {rule}; write http://HOST:8265")
    return address.rstrip("/")


class JobCluster:
    """The jobs of one cluster. Raises PlacementError when it cannot be reached or refuses us."""

    def __init__(self, address: str) -> None:
        self._address = check_address(address)
        for name in _NARRATING:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._asking():
            _check_reachable(self._address)
            with _without_overriding_variables():
                self._client = JobSubmissionClient(self._address)

    def check_room(self, placements: Sequence[Placement]) -> None:
        """Raise PlacementError when the nodes that are alive cannot hold the actors of one of the placements."""
        if not placements:
            return
        deadline = time.monotonic() + _AGENT_TIMEOUT_S
        while not (nodes := self._nodes()) and time.monotonic() < deadline:  # of a cluster that was just started
            time.sleep(_POLL_S)
        names = {name for node in nodes for name in node}
        total = {name: sum(node.get(name, 0.0) for node in nodes) for name in names}
        largest = {name: max(node.get(name, 0.0) for node in nodes) for name in names}
        for placement in placements:
            check_fits(placement, total, largest)

    def _nodes(self) -> list[Mapping[str, float]]:
        """Ray's resources of each node that is alive and has told them."""
        with self._asking(), _without_overriding_variables():
            nodes = list_nodes(self._address, detail=True)
        return [node.resources_total for node in nodes if node.state == "ALIVE" and node.resources_total]

    def submit(self, request: JobRequest) -> str:
        """Start a job; returns its id."""
        job_id = f"tinyr1v-{request.command[0]}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        with tempfile.TemporaryDirectory() as folder, self._asking():
            runtime_env: dict[str, Any] = {"env_vars": {"TOKENIZERS_PARALLELISM": "false", **request.environment}}
            if request.image:
                runtime_env["image_uri"] = request.image
            elif request.tree is not None:
                archive = Path(folder) / "working_tree.zip"
                write_archive(request.tree, archive)
                runtime_env["working_dir"] = str(archive)
            deadline = time.monotonic() + _AGENT_TIMEOUT_S
            while True:
                try:
                    return self._client.submit_job(
                        entrypoint=request.entrypoint,
                        submission_id=job_id,
                        runtime_env=runtime_env,
                        metadata=dict(request.metadata),
                    )
                except RuntimeError as error:  # a cluster that was started a moment ago has no agent for jobs yet
                    if "No available agent" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(_POLL_S)

    def state(self, job_id: str) -> JobState:
        """Of one job; raises ConfigError when there is no such job."""
        with self._asking(job_id):
            return _state(self._client.get_job_info(job_id))

    def states(self) -> list[JobState]:
        """Of all jobs that were submitted, the newest first."""
        with self._asking():
            jobs = [_state(job) for job in self._client.list_jobs() if job.submission_id]
        return sorted(jobs, key=lambda job: job.started_s or 0.0, reverse=True)

    def logs(self, job_id: str) -> str:
        """All that the job has written so far."""
        self.state(job_id)
        with self._asking(job_id):
            return self._client.get_job_logs(job_id)

    def follow(self, job_id: str, write: Callable[[str], object]) -> JobState:
        """Pass on what the job writes, from its beginning, until it ends. An interrupt leaves the job as it is."""
        self.state(job_id)
        num_passed = 0

        async def pass_on() -> None:
            nonlocal num_passed
            num_seen = 0  # a new connection begins with the log's first character again
            async for text in self._client.tail_job_logs(job_id):
                new = text[max(0, num_passed - num_seen) :]
                num_seen += len(text)
                num_passed += len(new)
                write(new)

        for _ in range(_MAX_RECONNECTIONS):
            with suppress(RuntimeError, aiohttp.ClientError):  # the line dropped, not the job, which is asked below
                asyncio.run(pass_on())
            state = self.state(job_id)
            if state.ended:
                return state
            time.sleep(_POLL_S)
        raise PlacementError(
            f"the line to {self._address} dropped {_MAX_RECONNECTIONS} times; the job goes on by itself; "
            f"follow it again: {come_back(self._address, job_id)}"
        )

    def stop(self, job_id: str, timeout_s: float = 60.0) -> JobState:
        """End a job: asked first, killed by Ray when it does not obey. A job that has ended stays as it is.

        Raises DeadlineError when it has not ended after `timeout_s`.
        """
        self.state(job_id)
        with self._asking(job_id):
            self._client.stop_job(job_id)
        deadline = time.monotonic() + timeout_s
        while not (state := self.state(job_id)).ended:
            if time.monotonic() > deadline:
                raise DeadlineError(f"job {job_id} still runs {timeout_s:g} s after it was told to stop; ask again")
            time.sleep(_POLL_S)
        return state

    @contextmanager
    def _asking(self, job_id: str = "") -> Iterator[None]:
        """Turn what the client raises into one of our errors."""
        try:
            yield
        except AuthenticationError as error:
            raise PlacementError(_refused(self._address, str(error))) from error
        except (RuntimeError, ValueError, OSError, TypeError, LookupError, AttributeError) as error:
            if isinstance(error, ConfigError | PlacementError):
                raise
            reason = " ".join(str(error).split())
            if job_id and "does not exist" in reason:
                raise ConfigError(
                    f"job {job_id} does not exist on {self._address}; a job id is what submit printed; see: "
                    f"tinyr1v jobs list --address {self._address}"
                ) from error
            raise PlacementError(
                f"{self._address} does not answer as a Ray dashboard: {reason[:300]}; it must be Ray's; "
                "check address and port (8265 unless set otherwise) and that the head node runs"
            ) from error


def come_back(address: str, job_id: str) -> str:
    """Command that follows a job again.

    >>> come_back("http://head:8265", "tinyr1v-train-1")
    'tinyr1v jobs logs --address http://head:8265 --follow tinyr1v-train-1'
    """
    return f"tinyr1v jobs logs --address {address} --follow {job_id}"


def _state(details: JobDetails) -> JobState:
    def seconds(milliseconds: int | None) -> float | None:
        return milliseconds / 1000 if milliseconds else None

    return JobState(
        job_id=details.submission_id or details.job_id or "",
        status=str(details.status.value),
        entrypoint=details.entrypoint,
        message=" ".join((details.message or "").partition(", last available logs")[0].split()),
        started_s=seconds(details.start_time),
        ended_s=seconds(details.end_time),
        exit_code=details.driver_exit_code,
    )


def _check_reachable(address: str) -> None:
    """A port that nobody listens on is found in seconds, not in the minutes that the system's own patience lasts."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((str(parts.hostname), port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise PlacementError(
            f"nobody answers at {address}: {error}; a cluster must run there; start one (ray start --head), or open "
            "the way to it (kubectl port-forward service/NAME-head-svc 8265, ssh -L 8265:127.0.0.1:8265 HEAD)"
        ) from error


def _refused(address: str, reason: str) -> str:
    seen = "wants a token and got none" if "Authentication required" in reason else "refuses the token it was given"
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    return (
        f"cluster {address} {seen} (RAY_AUTH_MODE is {mode}); it has token authentication on, Ray's default; set "
        "RAY_AUTH_MODE=token and the token, as RAY_AUTH_TOKEN, as the file RAY_AUTH_TOKEN_PATH or as ~/.ray/auth_token "
        "(on the head node, `ray get-auth-token` prints it)"
    )


@contextmanager
def _without_overriding_variables() -> Iterator[None]:
    saved = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)
