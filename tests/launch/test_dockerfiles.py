"""The Dockerfiles, read as text: no engine is needed to see what a linter sees."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from pathlib import Path

import pytest

from tinyr1v_ray.cli.main import build_parser
from tinyr1v_ray.doctor.machine import machine_checks
from tinyr1v_ray.doctor.software import software_checks

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
INSTRUCTIONS = {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY", "ARG", "HEALTHCHECK", "CMD"}
INSTALLERS = re.compile(r"\b(pip|pip3|uv|conda|poetry)\b (install|sync)")

Instruction = tuple[str, str]


def instructions(path: Path) -> list[Instruction]:
    """Name and arguments of each instruction; comments dropped, continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def arguments_of(parsed: list[Instruction], name: str) -> list[str]:
    return [rest for instruction, rest in parsed if instruction == name]


def doctor_commands(parsed: list[Instruction]) -> list[list[str]]:
    runs = [shlex.split(rest) for rest in arguments_of(parsed, "RUN") if rest.startswith("tinyr1v ")]
    healthy = [json.loads(rest.partition("CMD ")[2]) for rest in arguments_of(parsed, "HEALTHCHECK")]
    return [*runs, *healthy, *(json.loads(rest) for rest in arguments_of(parsed, "CMD"))]


dockerfiles = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)


def test_there_is_one_for_cpus_and_one_for_gpus() -> None:
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "gpu.Dockerfile"]


@dockerfiles
def test_the_base_is_pinned_and_the_one_python_of_the_project(path: Path) -> None:
    parsed = instructions(path)
    assert {name for name, _ in parsed} <= INSTRUCTIONS and parsed[0][0] == "FROM"
    bases = arguments_of(parsed, "FROM")
    assert len(bases) == 1 and re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases[0])
    assert ":latest" not in path.read_text(encoding="utf-8")


@dockerfiles
def test_nothing_of_the_project_runs_as_root(path: Path) -> None:
    parsed = instructions(path)
    assert arguments_of(parsed, "USER") == ["tinyr1v"]
    position = [name for name, _ in parsed].index("USER")
    before = [rest for name, rest in parsed[:position] if name == "RUN"]
    assert all("apt-get" in rest or "useradd" in rest for rest in before)
    assert not any("apt-get" in rest or "sudo" in rest for _, rest in parsed[position:])
    assert all(rest.startswith("--chown=tinyr1v ") for rest in arguments_of(parsed, "COPY"))


@dockerfiles
def test_system_packages_leave_no_lists_behind(path: Path) -> None:
    for rest in arguments_of(instructions(path), "RUN"):
        if "apt-get install" in rest:
            assert (
                "apt-get update" in rest and "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists" in rest
            )


@dockerfiles
def test_packages_are_installed_by_the_makefile_alone(path: Path) -> None:
    parsed = instructions(path)
    runs = arguments_of(parsed, "RUN")
    assert [rest for rest in runs if rest.startswith("make ")] == [f"make install EXTRAS={path.stem}"]
    assert not any(INSTALLERS.search(rest) for rest in runs)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^EXTRAS \?=", makefile, re.MULTILINE), "else the image's choice would be ignored"


@dockerfiles
def test_what_a_build_may_set_reaches_the_installation_and_is_left_to_it_when_it_is_not_set(path: Path) -> None:
    parsed = instructions(path)
    arguments = arguments_of(parsed, "ARG")
    assert arguments == (["PIP_INDEX_URL", "TORCH_CPU_INDEX"] if path.stem == "cpu" else ["PIP_INDEX_URL"])
    assert parsed.index(("ARG", arguments[-1])) < parsed.index(("RUN", f"make install EXTRAS={path.stem}"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^TORCH_CPU_INDEX \?= https://", makefile, re.MULTILINE), "the default is the Makefile's"


@dockerfiles
def test_what_is_copied_exists_and_code_comes_after_the_packages(path: Path) -> None:
    parsed = instructions(path)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    for rest in arguments_of(parsed, "COPY"):
        for source in rest.split()[1:-1]:
            assert (ROOT / source).exists(), source
            assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored)
    install = parsed.index(next(one for one in parsed if one[1].startswith("make install")))
    copied_before = " ".join(rest for name, rest in parsed[:install] if name == "COPY")
    assert "configs" not in copied_before and "tinyr1v_ray tinyr1v_ray" not in copied_before
    needed = ["pyproject.toml", f"constraints-{path.stem}.txt", "Makefile", "README.md", "tinyr1v_ray/__init__.py"]
    needed += ["tinyr1v_ray/cuda_wheels_on_cpu.py"] if path.stem == "cpu" else []
    for name in needed:
        assert name in copied_before, f"the installation reads {name}"


@dockerfiles
def test_it_is_looked_after_by_the_doctor(path: Path) -> None:
    parsed = instructions(path)
    names = {check.name for check in (*software_checks(), *machine_checks(0.0, {}))}
    commands = doctor_commands(parsed)
    assert len(commands) == 3, "a smoke test while it is built, a health check, and the default command"
    for command in commands:
        assert command[:2] == ["tinyr1v", "doctor"]
        options = build_parser().parse_args(command[1:])
        assert set(options.only or ()) <= names


def test_no_secret_and_no_environment_gets_into_an_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert {".git", ".venv", "runs", ".env*"} <= set(ignored)
