"""`make install` where something is wrong: one line says what, before anything is installed where it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch_index import torch_index, write_torch_wheels

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TORCH = "torch==2.13.0+cpu"
NOBODY = "http://127.0.0.1:9"
"""Where no index answers, as without a network."""
PRETENDING = """#!/bin/sh
exec {python} -c 'import sys; sys.version_info = {version}; del sys.argv[1]; code = sys.argv.pop(1); exec(code)' "$@"
"""
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=64m tmpfs {folder} && cd {folder} &&
cp {root}/Makefile {root}/pyproject.toml {root}/constraints-*.txt . &&
make install EXTRAS={profile} PYTHON={python}; echo "left: $(ls -A {folder} | grep venv)"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make install` reads, without the code: the package itself is never reached here."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints-cpu.txt", "constraints-gpu.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def plain_environment() -> dict[str, str]:
    """Without what pip, and a make that runs these tests, would hand down."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE"))}


def make(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    plain = {**plain_environment(), "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0", **settings}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True, timeout=300, check=False)


def lines_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said, without make's own word that a recipe failed."""
    assert done.returncode != 0, done.stdout
    assert done.stdout == ""
    return [line for line in done.stderr.splitlines() if not line.startswith("make: *** [")]


def test_a_profile_that_does_not_exist(checkout: Path) -> None:
    [line] = lines_of(make(checkout, "install", "EXTRAS=tpu"))
    assert "EXTRAS=tpu is no profile; it is cpu or gpu" in line
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 13, 0), (3, 9, 18)])
def test_a_python_that_is_not_supported(version: tuple[int, ...], checkout: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PRETENDING.format(python=sys.executable, version=version))
    python.chmod(0o755)
    [line] = lines_of(make(checkout, "install", f"PYTHON={python}"))
    assert line.startswith(f"Python {version[0]}.{version[1]} is not supported; tinyr1v-ray runs on 3.11 and 3.12;")
    assert not (checkout / ".venv").exists()


def test_no_python_at_all(checkout: Path) -> None:
    [line] = lines_of(make(checkout, "install", "PYTHON="))
    assert "no Python here; install Python 3.11 or 3.12" in line


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_disk_without_room(profile: str, tmp_path: Path) -> None:
    script = ON_A_SMALL_DISK.format(folder=tmp_path, root=ROOT, profile=profile, python=sys.executable)
    command = ["unshare", "--mount", "sh", "-c", script]
    plain = plain_environment()
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=60, check=False)
    if "make" not in done.stderr:
        if os.environ.get("TINYR1V_REQUIRE_MOUNT") == "1":
            pytest.fail("no file system can be mounted, and TINYR1V_REQUIRE_MOUNT=1 asks for one")
        pytest.skip("no file system can be mounted here")
    line = done.stderr.splitlines()[0]
    assert line.startswith("0.1 GB are free here; the ") and f"the {profile} profile takes up to" in line
    assert done.stdout == "left: \n", "nothing was begun"


def test_no_network_and_no_index(checkout: Path) -> None:
    done = make(checkout, "install", f"PYTHON={sys.executable}", f"TORCH_CPU_INDEX={NOBODY}", PIP_INDEX_URL=NOBODY)
    said, line = lines_of(done)
    assert said.startswith("installing the cpu profile into .venv")
    assert line.startswith(f"{TORCH} is not installed, neither from where pip looks nor from {NOBODY} (ERROR: ")
    assert line.endswith("give a folder of wheels: make install TORCH_CPU_INDEX=file:///FOLDER PIP_FIND_LINKS=/FOLDER")


def test_a_folder_of_wheels_gives_torch_and_the_rest_is_missed_in_one_line(checkout: Path, tmp_path: Path) -> None:
    write_torch_wheels(tmp_path / "wheels", "2.13.0+cpu")
    index = f"TORCH_CPU_INDEX=file://{tmp_path}/wheels"
    done = make(checkout, "install", f"PYTHON={sys.executable}", index, PIP_INDEX_URL=NOBODY)
    _, line = lines_of(done)
    assert line.startswith("the cpu profile is not installed (ERROR: No matching distribution found for hatchling")
    assert "make install PIP_NO_INDEX=1 PIP_FIND_LINKS=/FOLDER" in line
    assert list((checkout / ".venv").glob("lib/python3.*/site-packages/torch-2.13.0+cpu.dist-info"))
    assert "hatchling" in (checkout / ".venv" / "pip.log").read_text()


def test_torchs_index_is_asked_for_torch_and_its_two_companions_alone(checkout: Path, tmp_path: Path) -> None:
    with torch_index(tmp_path / "index", "2.13.0+cpu") as (address, asked):
        settings = {"PIP_INDEX_URL": NOBODY, "TORCH_CPU_INDEX": address}
        lines_of(make(checkout, "install", f"PYTHON={sys.executable}", **settings))
        wheel = f"/torch/torch-2.13.0%2Bcpu-cp3{sys.version_info[1]}-cp3{sys.version_info[1]}-manylinux_2_28_x86_64.whl"
        assert asked == ["/torch/", wheel, "/torchvision/", "/torchaudio/"]


def test_a_build_where_pip_is_configured_to_look_goes_first(checkout: Path, tmp_path: Path) -> None:
    write_torch_wheels(tmp_path / "wheels", "2.13.0+cpu")
    with torch_index(tmp_path / "index", "2.13.0+cpu") as (address, asked):
        settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "TORCH_CPU_INDEX": address}
        lines_of(make(checkout, "install", f"PYTHON={sys.executable}", **settings))
        assert asked == []


@pytest.mark.parametrize(
    ("there", "wanted", "anew"),
    [
        ([], [], True),  # interrupted: an environment without the mark that is set last
        ([".installed-cpu"], [], False),
        ([".installed-gpu"], ["EXTRAS=cpu"], True),
        ([".installed-gpu"], [], False),
    ],
)
def test_an_environment_that_is_not_whole_or_of_the_other_profile_is_begun_anew(
    there: list[str], wanted: list[str], anew: bool, checkout: Path
) -> None:
    (checkout / ".venv").mkdir()
    for name in there:
        (checkout / ".venv" / name).touch()
        os.utime(checkout / ".venv" / name, (0, 0))  # older than the lock
    done = make(checkout, "--dry-run", "install", f"PYTHON={sys.executable}", *wanted)
    assert done.returncode == 0 and (f"{sys.executable} -m venv --clear .venv" in done.stdout) == anew
    profile = "cpu" if wanted else there[0].rpartition("-")[2] if there else "cpu"
    assert f"'.[{profile},dev]' --constraint constraints-{profile}.txt" in done.stdout
    assert done.stdout.index(f"rm -f .venv/.installed-{profile}") < done.stdout.index("pip install")
    assert done.stdout.rstrip().endswith(f"touch .venv/.installed-{profile}")


def test_a_whole_environment_is_left_alone(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".installed-gpu").touch()
    done = make(checkout, "install")
    assert (done.returncode, done.stderr) == (0, "") and "Nothing to be done" in done.stdout
