"""Checkpoints are whole or not there: corruption, missing files, full disks, kills at any moment."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tinyr1v_ray.checkpoint import manifest, store
from tinyr1v_ray.checkpoint.manifest import MANIFEST, RunState
from tinyr1v_ray.checkpoint.store import CheckpointFolder
from tinyr1v_ray.errors import CheckpointError
from tinyr1v_ray.files import durable

PAYLOAD = {"deepspeed/model.pt": b"weights" * 1000, "deepspeed/optim.pt": b"moments" * 2000, "note.json": b"{}"}


def state(step: int) -> RunState:
    return RunState(step, step * 16, {"torch": "2.13.0"}, {"beta": step / 7})


def save(checkpoints: CheckpointFolder, step: int) -> None:
    with checkpoints.writing(step) as pending:
        for name, content in PAYLOAD.items():
            path = pending.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content + str(step).encode())
        pending.commit(state(step))


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints", keep_last=2)


def test_what_was_saved_comes_back(checkpoints: CheckpointFolder) -> None:
    assert checkpoints.latest() is None
    save(checkpoints, 40)
    found = checkpoints.latest()
    assert found is not None and found.state == state(40)
    assert found.folder.name == "step-000040"
    for name, content in PAYLOAD.items():
        assert (found.folder / name).read_bytes() == content + b"40"


def test_the_newest_ones_are_kept(checkpoints: CheckpointFolder) -> None:
    for step in (20, 40, 60, 1_000_000):
        save(checkpoints, step)
    assert checkpoints.steps() == [60, 1_000_000]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-000060", "step-1000000"]


def test_only_the_newest_is_kept_on_request(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep_last=1)
    for step in (20, 40):
        save(checkpoints, step)
    assert checkpoints.steps() == [40]


def test_the_older_one_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of the rename the older checkpoint is there and verifies."""
    checkpoints = CheckpointFolder(tmp_path, keep_last=1)
    save(checkpoints, 20)
    seen: list[list[int]] = []
    rename = Path.rename

    def spy(path: Path, target: Path) -> Path:
        seen.append(checkpoints.steps())
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", spy)
    save(checkpoints, 40)
    assert seen == [[20], [20, 40]]  # before it appears, and before the older one goes


CORRUPTIONS = {
    "flipped byte": ("deepspeed/model.pt", "has another hash"),
    "truncated": ("deepspeed/optim.pt", "bytes instead of"),
    "missing": ("note.json", "is missing"),
    "extra": ("deepspeed/planted.pt", "is not in the manifest"),
    "symlink": ("note.json", "is not a plain file"),
    "manifest missing": (MANIFEST, "is missing"),
    "manifest cut": (MANIFEST, "cannot be read"),
    "manifest edited": (MANIFEST, "has another hash"),
}


def corrupt(folder: Path, kind: str) -> None:
    path = folder / CORRUPTIONS[kind][0]
    content = path.read_bytes() if path.exists() else b""
    if kind == "flipped byte":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif kind in ("truncated", "manifest cut"):
        path.write_bytes(content[: len(content) // 2])
    elif kind in ("missing", "manifest missing"):
        path.unlink()
    elif kind == "extra":
        path.write_bytes(b"cos\nsystem\n")
    elif kind == "symlink":
        path.rename(folder.parent / "elsewhere")
        path.symlink_to(folder.parent / "elsewhere")
    else:
        path.write_text(path.read_text().replace('"cursor": 640', '"cursor": 641'))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_bad_file_is_named_and_the_previous_is_used_only_on_request(checkpoints: CheckpointFolder, kind: str) -> None:
    save(checkpoints, 20)
    save(checkpoints, 40)
    corrupt(checkpoints.path(40), kind)
    name, what = CORRUPTIONS[kind]
    with pytest.raises(CheckpointError, match=what) as caught:
        checkpoints.latest()
    assert str(checkpoints.path(40) / name) in str(caught.value)
    found = checkpoints.latest(allow_previous=True)
    assert found is not None and found.state.step == 20


def test_when_none_is_good_the_newest_is_named(checkpoints: CheckpointFolder) -> None:
    for step in (20, 40):
        save(checkpoints, step)
        corrupt(checkpoints.path(step), "flipped byte")
    with pytest.raises(CheckpointError, match="step-000040"):
        checkpoints.latest(allow_previous=True)


def test_files_of_another_user_are_not_read(checkpoints: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    save(checkpoints, 20)
    monkeypatch.setattr(manifest.os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(CheckpointError, match="belongs to user"):
        checkpoints.latest()


def test_going_on_from_an_older_one_drops_the_later_ones(checkpoints: CheckpointFolder) -> None:
    for step in (20, 40):
        save(checkpoints, step)
    corrupt(checkpoints.path(40), "flipped byte")
    save(checkpoints, 30)
    assert checkpoints.steps() == [20, 30]


def test_a_step_can_be_written_again(checkpoints: CheckpointFolder) -> None:
    save(checkpoints, 40)
    corrupt(checkpoints.path(40), "flipped byte")
    save(checkpoints, 40)
    found = checkpoints.latest()
    assert found is not None and found.state.step == 40


def test_without_commit_or_on_an_error_nothing_stays(checkpoints: CheckpointFolder) -> None:
    save(checkpoints, 20)
    with checkpoints.writing(40) as pending:
        (pending.folder / "file").write_bytes(b"x")
    with pytest.raises(ZeroDivisionError), checkpoints.writing(40) as pending:
        (pending.folder / "file").write_bytes(b"x")
        _ = 1 / 0
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000020"]


def test_too_little_space_is_said_before_anything_is_written(checkpoints: CheckpointFolder) -> None:
    entered = False
    with pytest.raises(CheckpointError, match="MiB free"), checkpoints.writing(40, num_bytes=2**60):
        entered = True
    assert not entered and list(checkpoints.folder.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, where this user may mount one."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = tmp_path / "disk"
    folder.mkdir()
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=256k") != 0:
        if os.environ.get("TINYR1V_REQUIRE_MOUNT") == "1":
            pytest.fail("no file system can be mounted, and TINYR1V_REQUIRE_MOUNT=1 asks for one")
        pytest.skip("mounting a small file system needs root")
    yield folder
    libc.umount(str(folder).encode())


def test_a_full_disk_leaves_the_last_good_one(small_disk: Path) -> None:
    """A real file system runs full in the middle of a save."""
    checkpoints = CheckpointFolder(small_disk / "checkpoints", keep_last=2)
    save(checkpoints, 20)
    with pytest.raises(CheckpointError, match="the disk is full"), checkpoints.writing(40) as pending:
        (pending.folder / "weights").write_bytes(b"x" * 2**20)
        pending.commit(state(40))
    found = checkpoints.latest()
    assert found is not None and found.state.step == 20
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000020"]
    save(checkpoints, 40)
    assert checkpoints.steps() == [20, 40]


@pytest.mark.parametrize(
    ("module", "function", "folder", "newest"),
    [
        (store, "write_manifest", "", 20),
        (store, "sync_tree", "", 20),
        (durable, "sync", "", 20),
        (store, "sync", "checkpoints", 40),
    ],
    ids=["the manifest", "syncing the tree", "syncing a file", "syncing the rename"],
)
def test_a_failing_write_anywhere_leaves_a_good_one(
    checkpoints: CheckpointFolder,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    function: str,
    folder: str,
    newest: int,
) -> None:
    """The one before; from the rename on, the new one."""
    save(checkpoints, 20)
    works = getattr(module, function)

    def fail(path: Path, *arguments: object) -> None:
        if folder in ("", path.name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        works(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, fail)
        with pytest.raises(CheckpointError, match="the disk is full"):
            save(checkpoints, 40)
    checkpoints.clean()
    found = checkpoints.latest()
    assert found is not None and found.state == state(newest)
    assert checkpoints.steps() == [20, 40][: newest // 20]


SAVER = """
import sys, time
from pathlib import Path
from tinyr1v_ray.checkpoint.manifest import RunState
from tinyr1v_ray.checkpoint.store import CheckpointFolder
checkpoints = CheckpointFolder(Path(sys.argv[1]), keep_last=int(sys.argv[2]))
step = (checkpoints.steps() or [0])[-1]
while True:
    step += int(sys.argv[3])
    with checkpoints.writing(max(step, 1)) as pending:
        for index in range(8):
            (pending.folder / f"part-{index}").write_bytes(bytes([step % 256]) * 20000)
        pending.commit(RunState(max(step, 1), step, {}))
    print(step, flush=True)
"""


@pytest.mark.parametrize(("keep_last", "stride"), [(2, 1), (1, 0)])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path, keep_last: int, stride: int) -> None:
    """A process that saves without pause is killed twelve times at random moments; the newest one always verifies,
    also when every save replaces the only checkpoint, and no save that was reported done is lost."""
    folder = tmp_path / "checkpoints"
    rng = random.Random(0)
    num_partial = 0
    for _ in range(12):
        command = [sys.executable, "-c", SAVER, str(folder), str(keep_last), str(stride)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        reported = process.stdout.readline()  # at least one save is done
        time.sleep(rng.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        lines = [reported, *process.stdout.readlines()]
        process.wait()
        num_partial += any(path.name.startswith(".") for path in folder.iterdir())
        checkpoints = CheckpointFolder(folder, keep_last)
        checkpoints.clean()
        found = checkpoints.latest()
        assert found is not None and found.state.step >= max(int(lines[-1] or 0), 1)
        parts = {path.read_bytes() for path in found.folder.glob("part-*")}
        assert parts == {bytes([found.state.cursor % 256]) * 20000}
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert num_partial > 0  # some kills did hit a save


def test_the_manifest_lists_sizes_hashes_and_state(checkpoints: CheckpointFolder) -> None:
    save(checkpoints, 40)
    content = json.loads((checkpoints.path(40) / MANIFEST).read_text())
    assert content["state"] == {
        "step": 40,
        "cursor": 640,
        "versions": {"torch": "2.13.0"},
        "advantages": {"beta": 40 / 7},
    }
    assert set(content["files"]) == set(PAYLOAD)
    assert content["files"]["note.json"]["num_bytes"] == 4
