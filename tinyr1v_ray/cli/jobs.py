"""`tinyr1v jobs`: what runs on a cluster, and its logs; a job can be stopped."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from tinyr1v_ray.cluster.submission import JobCluster, JobState

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command and its own."""
    parser = subparsers.add_parser(
        "jobs",
        help="list, follow and stop jobs on a Ray cluster",
        description="What `tinyr1v submit` started on a cluster. Follow a job again, see how it ended, stop it.",
        epilog="example: tinyr1v jobs logs --address http://127.0.0.1:8265 --follow JOB",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("list", "all jobs, the newest first"),
        ("logs", "what a job has written"),
        ("status", "how a job stands; exit code 0 unless it failed or was stopped"),
        ("stop", "end a job"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        add_address(action)
        if name != "list":
            action.add_argument("job_id", metavar="JOB", help="id that submit printed, see `tinyr1v jobs list`")
        if name == "logs":
            action.add_argument("--follow", action="store_true", help="go on until the job ends")
    parser.set_defaults(run=run)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Declare --address, whose default is the variable that Ray's own tools read."""
    parser.add_argument(
        "--address",
        default=os.environ.get(ADDRESS_VARIABLE, ""),
        metavar="URL",
        help=f"dashboard of the cluster, http://HOST:8265 (default: {ADDRESS_VARIABLE})",
    )


def run(options: argparse.Namespace) -> int:
    """Ask the cluster and print."""
    cluster = connect(options.address)
    if options.action == "list":
        print("\n".join(_table(cluster.states())))
        return 0
    if options.action == "logs":
        if options.follow:
            return follow(cluster, options.address, options.job_id)
        sys.stdout.write(cluster.logs(options.job_id))
        return 0
    before = cluster.state(options.job_id)
    if options.action == "stop":
        after = cluster.stop(options.job_id)
        print(describe(after) + (" (it had ended before)" if before.ended else ""))
        return 0
    print(describe(before))
    return 1 if before.status in ("FAILED", "STOPPED") else 0


def use_token_at_hand() -> None:
    """Switch token authentication on where a token lies ready, as `ray.init` does. Before Ray is imported: it reads
    the variable then."""
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if any(os.environ.get(name) for name in names) or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def connect(address: str) -> JobCluster:
    """The cluster's jobs."""
    use_token_at_hand()

    from tinyr1v_ray.cluster.submission import JobCluster

    return JobCluster(address)


def follow(cluster: JobCluster, address: str, job_id: str) -> int:
    """Show a job's output until it ends; an interrupt leaves it running and says how to come back."""
    from tinyr1v_ray.cluster.submission import come_back

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        state = cluster.follow(job_id, write)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\njob {job_id} goes on without this terminal\n  come back: {come_back(address, job_id)}\n"
            f"  stop it:   tinyr1v jobs stop --address {address} {job_id}\n"
        )
        return 130
    print(describe(state))
    return exit_code(state)


def exit_code(state: JobState) -> int:
    """Of the job's own command where it had one (2: its input is at fault), else 1 for a job that did not succeed."""
    if state.status == "SUCCEEDED":
        return 0
    return state.exit_code if state.exit_code in (1, 2) else 1


def describe(state: JobState) -> str:
    """One line."""
    elapsed = "" if state.elapsed_s is None else f" after {state.elapsed_s:.0f} s"
    message = f": {state.message[:300]}" if state.status == "FAILED" and state.message else ""
    hint = "; the cluster's `python` is not the one that has tinyr1v, see --python" if state.exit_code == 127 else ""
    return f"job {state.job_id} {state.status.lower()}{elapsed}{message}{hint}"


def _table(states: list[JobState]) -> list[str]:
    if not states:
        return ["no jobs"]
    width = max(len(state.job_id) for state in states)
    lines = [f"{'job':<{width}}  {'status':<9}  {'started':<19}  {'seconds':>7}  command"]
    for state in states:
        began = "" if state.started_s is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.started_s))
        elapsed = "" if state.elapsed_s is None else f"{state.elapsed_s:.0f}"
        command = state.entrypoint.replace("python -m tinyr1v_ray.cli.main", "tinyr1v")
        lines.append(f"{state.job_id:<{width}}  {state.status.lower():<9}  {began:<19}  {elapsed:>7}  {command}")
    return lines
