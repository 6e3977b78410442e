"""Checks of what lies outside: a Ray cluster and its token, its job server, the model hub, a configuration's files."""

from __future__ import annotations

import os
import stat
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tinyr1v_ray.cluster.connection import unreachable
from tinyr1v_ray.cluster.submission import JobCluster
from tinyr1v_ray.doctor.finding import Check, CheckResult, Status, run_probe
from tinyr1v_ray.errors import TinyR1VError

_RAY_TIMEOUT_S = 240.0
_CONFIG_TIMEOUT_S = 240.0
_HUB_TIMEOUT_S = 10.0
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def environment_checks(
    cluster_address: str, dashboard: str, config: Path | None, overrides: Sequence[str], uses_hub: bool
) -> list[Check]:
    """The last two are left out unless there is an address of a dashboard and a configuration."""
    address = cluster_address or os.environ.get("RAY_ADDRESS", "")
    checks = [
        Check("ray", "every part of a run is a Ray actor", lambda: check_ray(address)),
        Check("ray token", "without one, whoever reaches Ray's ports runs code as you", check_token),
        Check("hub", "models and data sets with a name owner/name come from there", lambda: check_hub(uses_hub)),
    ]
    if dashboard:
        checks.append(Check("job server", "tinyr1v submit speaks to it", lambda: check_job_server(dashboard)))
    if config is not None:
        checks.append(Check("configuration", "a run reads and writes them", lambda: check_config(config, overrides)))
    return checks


def check_ray(address: str, timeout_s: float = _RAY_TIMEOUT_S) -> CheckResult:
    """Join the cluster at the address, or start one here when it is empty; run one task on it."""
    if reason := unreachable(address):
        return CheckResult(
            Status.PROBLEM,
            f"nobody answers at {address}: {reason}",
            "start the cluster (ray start --head), open its port, or correct cluster.address or RAY_ADDRESS",
        )
    fix = "see the newest logs in /tmp/ray/session_latest/logs; check limits, memory and a firewall between the nodes"
    with tempfile.TemporaryDirectory() as home:  # a cluster started to look at leaves no token behind
        extra = {} if address else {"HOME": home}
        return run_probe("tinyr1v_ray.doctor.probe_ray", [address], timeout_s, fix, extra)


def check_token(home: Path | None = None) -> CheckResult:
    """How Ray's token authentication is set here; the token itself is never shown."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or (home or Path.home()) / ".ray" / "auth_token")
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode == "disabled":
        return CheckResult(
            Status.WARNING,
            "RAY_AUTH_MODE=disabled",
            "unset it, and make a token with `ray get-auth-token --generate`; keep ports on loopback where you cannot",
        )
    if os.environ.get("RAY_AUTH_TOKEN"):
        return CheckResult(Status.OK, "from RAY_AUTH_TOKEN")
    if not file.is_file():
        if mode == "token" or "RAY_AUTH_TOKEN_PATH" in os.environ:
            return CheckResult(
                Status.PROBLEM,
                f"token authentication is on, and {file} does not exist",
                "`ray get-auth-token --generate` makes a token; for a running cluster copy its own, see the head node",
            )
        return CheckResult(Status.OK, "none yet; Ray makes one when it starts a cluster on this machine")
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        return CheckResult(Status.WARNING, f"{file} can be read by other users", f"chmod 600 {file}")
    return CheckResult(Status.OK, f"from {file}")


def check_hub(needed: bool) -> CheckResult:
    """Whether the Hugging Face hub answers, or is left alone on purpose."""
    offline = next((name for name in _OFFLINE if os.environ.get(name, "0").lower() not in ("", "0", "false")), None)
    if offline:
        return CheckResult(Status.OK, f"{offline} is set: only what is cached is used")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        with urllib.request.urlopen(f"{endpoint}/api/models?limit=1", timeout=_HUB_TIMEOUT_S) as answer:
            return CheckResult(Status.OK, f"{endpoint} answers {answer.status}")
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        return CheckResult(
            Status.PROBLEM if needed else Status.WARNING,
            f"{endpoint} does not answer: {reason}",
            "local folders and the miniature work without it; else set HTTPS_PROXY or HF_ENDPOINT (a mirror), or fill "
            "HF_HOME elsewhere and set HF_HUB_OFFLINE=1",
        )


def check_job_server(dashboard: str) -> CheckResult:
    """Whether jobs can be listed there, which takes reachability, a fitting version and the token."""
    try:
        jobs = JobCluster(dashboard).states()
    except TinyR1VError as error:
        seen, _, remedy = str(error).partition("; ")
        return CheckResult(Status.PROBLEM, seen, remedy)
    return CheckResult(Status.OK, f"{dashboard} answers, {sum(not job.ended for job in jobs)} of {len(jobs)} jobs run")


def check_config(config: Path, overrides: Sequence[str]) -> CheckResult:
    """What a configuration of any kind names: models, data, benchmarks, where results go."""
    return run_probe(
        "tinyr1v_ray.doctor.probe_config",
        [str(config), *overrides],
        _CONFIG_TIMEOUT_S,
        "mend the imports first",
    )
