"""When a run saves and what survives: the schedule, a damaged file, a full disk. The learner is a writer of files."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tinyr1v_ray.checkpoint.store import CheckpointFolder
from tinyr1v_ray.cluster.learner_group import LearnerGroup
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import CheckpointError
from tinyr1v_ray.jobs.train.checkpoints import Checkpoints
from tinyr1v_ray.learner.rank import LearnerRank


class FileWriter:
    """Saves one file whose content is its call count; the disk can be full."""

    def __init__(self) -> None:
        self.num_saves = 0
        self.disk_is_full = False

    async def everywhere(self, method: Callable[..., Any], timeout_s: float, *args: Any) -> Any:
        return {LearnerRank.state_bytes: self.state_bytes, LearnerRank.save: self.save}[method](*args)

    def state_bytes(self) -> int:
        return 8

    def save(self, folder: Path) -> None:
        self.num_saves += 1
        (folder / "state").write_text(str(self.num_saves))
        if self.disk_is_full:
            raise OSError(errno.ENOSPC, "No space left on device")


def saved(folder: Path, learner: FileWriter, steps: range) -> CheckpointFolder:
    overrides = ["run.name=a", "data.train=[a.jsonl]", "run.num_steps=10", "checkpoint.every_n_steps=4"]
    config = parse_settings(TrainConfig, {}, overrides)
    store = CheckpointFolder(folder, keep_last=2)
    checkpoints = Checkpoints(store, config, cast(LearnerGroup, learner))

    async def run() -> None:
        for step in steps:
            await checkpoints.after_step(step, cursor=16 * step, state={"beta": step / 3})

    asyncio.run(run())
    return store


def test_saves_at_multiples_and_at_the_last_step(tmp_path: Path) -> None:
    store = saved(tmp_path, FileWriter(), range(1, 11))
    assert store.steps() == [8, 10]  # 4 went when 10 came: two are kept
    latest = store.latest()
    assert latest is not None and (latest.state.step, latest.state.cursor) == (10, 160)
    assert latest.state.advantages == {"beta": 10 / 3}
    assert latest.state.versions["ray"]


def test_a_damaged_checkpoint_is_named_and_passed_over_only_when_told_to(tmp_path: Path) -> None:
    store = saved(tmp_path, FileWriter(), range(1, 11))
    (store.path(10) / "state").write_text("x")
    with pytest.raises(CheckpointError, match="state"):
        store.latest()
    previous = store.latest(allow_previous=True)
    assert previous is not None and previous.state.step == 8


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    learner = FileWriter()
    store = saved(tmp_path, learner, range(1, 5))
    learner.disk_is_full = True
    with pytest.raises(CheckpointError, match=r"step 8 cannot be written .* disk is full"):
        saved(tmp_path, learner, range(5, 9))
    latest = store.latest()
    assert latest is not None and latest.state.step == 4
    assert [path.name for path in tmp_path.iterdir()] == ["step-000004"]
