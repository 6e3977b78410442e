"""What a check finds, and how checks are run: side by side, each with its own deadline, none able to end the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from enum import StrEnum

_LAST_LINES = 3


class Status(StrEnum):
    """How a finding is to be taken: a problem stops runs, a warning may slow or surprise them."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class CheckResult:
    """Result of one check: what was seen and, unless all is well, how to mend it."""

    status: Status
    seen: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """One thing to examine. `why` says what it matters for."""

    name: str
    why: str
    examine: Callable[[], CheckResult]


@dataclass(frozen=True)
class Finding:
    """What is reported of a check.

    >>> Finding("disk", Status.OK, "90 GiB free", "checkpoints", "", 0.1).lines()
    ['ok       disk                90 GiB free']
    """

    name: str
    status: Status
    seen: str
    why: str
    fix: str
    elapsed_s: float

    def lines(self) -> list[str]:
        """For reading; reasons and remedies only where something is amiss."""
        first = f"{self.status:<8} {self.name:<19} {self.seen}"
        if self.status == Status.OK:
            return [first]
        return [first, f"{'':<9}why: {self.why}", f"{'':<9}fix: {self.fix}"]


def run_checks(
    checks: Sequence[Check], on_done: Callable[[Finding], object], num_at_once: int | None = None
) -> list[Finding]:
    """Findings in the order of `checks`; `on_done` gets each as soon as it is there."""
    found: dict[str, Finding] = {}
    with ThreadPoolExecutor(num_at_once or max(2, min(4, os.cpu_count() or 1))) as pool:
        for done in as_completed([pool.submit(_examine, check) for check in checks]):
            finding = done.result()
            found[finding.name] = finding
            on_done(finding)
    return [found[check.name] for check in checks]


def _examine(check: Check) -> Finding:
    started = time.monotonic()
    try:
        outcome = check.examine()
    except (OSError, ValueError, RuntimeError, LookupError, subprocess.SubprocessError) as error:
        outcome = CheckResult(Status.PROBLEM, f"the check failed itself: {_one_line(str(error))}", "report it as a bug")
    elapsed_s = round(time.monotonic() - started, 3)
    return Finding(check.name, outcome.status, outcome.seen, check.why, outcome.fix, elapsed_s)


def to_json(findings: Iterable[Finding]) -> str:
    """All findings as one JSON object."""
    rows = [asdict(finding) for finding in findings]
    return json.dumps({"healthy": all(row["status"] != Status.PROBLEM for row in rows), "findings": rows}, indent=2)


@dataclass(frozen=True)
class ProbeResult:
    """How a fresh interpreter ended: its output's last line, or the last lines of its complaint."""

    succeeded: bool
    text: str
    elapsed_s: float


def run_python(arguments: Sequence[str], timeout_s: float, extra: Mapping[str, str] | None = None) -> ProbeResult:
    """Run this interpreter anew, so that neither our imports nor a crash of theirs can reach the other side."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **(extra or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return ProbeResult(False, f"no answer within {timeout_s:g} s", timeout_s)
    elapsed_s = time.monotonic() - started
    if done.returncode == 0:
        lines = done.stdout.strip().splitlines()
        return ProbeResult(True, lines[-1] if lines else "", elapsed_s)
    said = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
    how = f"ended by signal {-done.returncode}: " if done.returncode < 0 else ""
    return ProbeResult(False, how + _one_line(" / ".join(said[-_LAST_LINES:]) or "no output"), elapsed_s)


def run_probe(
    module: str, arguments: Sequence[str], timeout_s: float, fix: str, extra: Mapping[str, str] | None = None
) -> CheckResult:
    """Run a probe module, which prints an CheckResult as JSON; one that dies is a problem with remedy `fix`."""
    result = run_python(["-m", module, *arguments], timeout_s, extra)
    if not result.succeeded:
        return CheckResult(Status.PROBLEM, result.text, fix)
    row = json.loads(result.text)
    return CheckResult(Status(row["status"]), row["seen"], row["fix"])


def write_result(outcome: CheckResult) -> None:
    """How a probe answers: one line of JSON, its last."""
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")


def _one_line(text: str) -> str:
    return " ".join(text.split())[-400:]
