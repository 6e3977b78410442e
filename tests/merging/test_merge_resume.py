"""Interrupted anywhere and started again, a merge ends in the bytes of one that was never interrupted."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.errors import CheckpointError, RunFolderError
from tinyr1v_ray.merging.execute import execute_task
from tinyr1v_ray.merging.local_run import local_runner, run_in_threads
from tinyr1v_ray.merging.schedule import Bundle, Queue, makespan_s
from tinyr1v_ray.merging.session import BundleResult, MergeSummary, PreparedMerge, Silent, prepare_merge, run_merge

pytestmark = pytest.mark.slow

MEMORY = 4 << 30


class PulledPlug(BaseException):
    """Ends a merge at once, like a kill as far as this process can."""


@pytest.fixture
def settings(tied_base: Path, experts: list[Path], tmp_path: Path) -> dict:
    return {
        "base": str(tied_base),
        "experts": [str(path) for path in experts],
        "output": str(tmp_path / "merged"),
        "methods": {
            "amm": {"amm": {"steps": 6}},
            "ties": {"name": "ties", "output_dtype": "bfloat16", "rounding": "stochastic"},
        },
    }


def prepared_merge(settings: dict) -> PreparedMerge:
    config = MergeConfig.model_validate(settings)
    return prepare_merge(config, Path(config.base))


def run(settings: dict, runner: Callable | None = None) -> MergeSummary:
    return run_merge(prepared_merge(settings), runner or local_runner(2, MEMORY), Silent())


def output_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


@pytest.fixture
def whole(settings: dict, tmp_path: Path) -> dict[str, bytes]:
    """The bytes of an uninterrupted merge."""
    run(settings | {"output": str(tmp_path / "whole")})
    return output_bytes(tmp_path / "whole")


def stopping_after(num_tasks: int) -> Callable:
    """A runner that does single tasks in random order and then dies."""

    def runner(
        prepared: PreparedMerge, folder: Path, bundles: Sequence[Bundle], done: Callable[[BundleResult], None]
    ) -> None:
        left = [index for bundle in bundles for index in bundle.tasks]
        random.Random(num_tasks).shuffle(left)
        for index in left[:num_tasks]:
            records = tuple(execute_task(prepared.plan, index, folder))
            done(BundleResult(Bundle((index,), None, 0, 0, 0), ((index, records),)))
        if num_tasks < len(left):
            execute_task(prepared.plan, left[num_tasks], folder)  # written, but not in the journal
            raise PulledPlug
        for bundle in bundles:
            if bundle.file is not None:
                done(BundleResult(bundle, sha256="0" * 64))

    return runner


def test_any_order_and_any_number_of_threads(settings: dict, whole: dict[str, bytes], tmp_path: Path) -> None:
    for name, runner in (
        ("one", local_runner(1, MEMORY)),
        ("four", local_runner(4, MEMORY)),
        ("shuffled", stopping_after(10**6)),
    ):
        run(settings | {"output": str(tmp_path / name)}, runner)
        assert output_bytes(tmp_path / name) == whole


def test_continues_after_each_of_several_ends(settings: dict, whole: dict[str, bytes], tmp_path: Path) -> None:
    for num_tasks in (0, 1, 7, 20):
        with pytest.raises(PulledPlug):
            run(settings, stopping_after(num_tasks))
        assert not (tmp_path / "merged").exists()
    summary = run(settings)
    assert summary.resumed_tasks == 28
    assert output_bytes(tmp_path / "merged") == whole
    assert not (tmp_path / ".merged.partial").exists()
    assert json.loads((tmp_path / "merged/amm/merge.json").read_text())["counts"]["merged"] == 26


def test_what_the_disk_contradicts_is_done_again(settings: dict, whole: dict[str, bytes], tmp_path: Path) -> None:
    """After a power failure a journal may be ahead of the data, or torn."""
    with pytest.raises(PulledPlug):
        run(settings, stopping_after(30))
    working = tmp_path / ".merged.partial"
    shard = working / "output/amm/model.safetensors"
    with shard.open("r+b") as file:
        file.seek(shard.stat().st_size // 2)
        file.write(b"\0" * (shard.stat().st_size // 3))
    (working / "output/ties/model.safetensors").unlink()
    with (working / "journal.jsonl").open("ab") as file:
        file.write(b'{"task": 3, "rec')
    assert run(settings).resumed_tasks == 0
    assert output_bytes(tmp_path / "merged") == whole
    with pytest.raises(PulledPlug):
        run(settings | {"output": str(tmp_path / "second")}, stopping_after(30))
    shard = tmp_path / ".second.partial/output/amm/model.safetensors"
    with shard.open("r+b") as file:
        file.seek(shard.stat().st_size // 2)
        file.write(b"\0" * (shard.stat().st_size // 3))
    assert 0 < run(settings | {"output": str(tmp_path / "second")}).resumed_tasks < 30
    assert output_bytes(tmp_path / "second") == whole


def test_a_merge_killed_after_its_last_rename_is_finished(settings: dict, tmp_path: Path) -> None:
    run(settings)
    (tmp_path / ".merged.partial").mkdir()
    run(settings)
    assert not (tmp_path / ".merged.partial").exists()
    with pytest.raises(RunFolderError, match="exists"):
        run(settings | {"resume": False})


def test_a_finished_merge_with_other_files_beside_its_weights_is_another(settings: dict, tmp_path: Path) -> None:
    expert = shutil.copytree(settings["experts"][0], tmp_path / "expert")
    (expert / "chat_template.jinja").write_text("another")
    settings["experts"] = [str(expert), *settings["experts"][1:]]
    run(settings)
    run(settings)
    with pytest.raises(RunFolderError, match="exists"):
        run(settings | {"donor": "0"})


def test_other_settings_or_inputs_do_not_continue(settings: dict, tmp_path: Path, experts: list[Path]) -> None:
    with pytest.raises(PulledPlug):
        run(settings, stopping_after(5))
    other = settings | {"methods": {"amm": {"amm": {"steps": 7}}, "ties": {"name": "ties"}}}
    with pytest.raises(RunFolderError, match="--no-resume"):
        run(other)
    os.utime(experts[0] / "model.safetensors")
    with pytest.raises(RunFolderError, match="other inputs or settings"):
        run(settings)
    assert run(settings | {"resume": False}).resumed_tasks == 0


def test_two_merges_into_one_output(settings: dict) -> None:
    def runner(prepared: PreparedMerge, *_: object) -> None:
        with pytest.raises(RunFolderError, match="in use"):
            run(settings)
        raise PulledPlug

    with pytest.raises(PulledPlug):
        run(settings, runner)
    run(settings)


def test_output_changed_behind_the_merge_s_back_is_seen(settings: dict, tmp_path: Path) -> None:
    def runner(
        prepared: PreparedMerge, folder: Path, bundles: Sequence[Bundle], done: Callable[[BundleResult], None]
    ) -> None:
        run_in_threads(prepared.plan, folder, bundles, done, num_threads=1, memory_bytes=MEMORY)
        place = prepared.plan.tasks[4].places[0]
        with (folder / place.shard).open("r+b") as file:
            file.seek(place.offset)
            file.write(b"\x01")

    with pytest.raises(CheckpointError, match="journal's hashes"):
        run(settings, runner)
    assert not (tmp_path / "merged").exists()
    run(settings)


SCRIPT = """
import sys
from tinyr1v_ray.config.base import load_settings
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.jobs.merge import job as merge_job
from pathlib import Path
config = load_settings(MergeConfig, Path(sys.argv[1]))
merge_job.run_merge_job(merge_job.prepare(config))
"""


def start(config: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(config)], env=environment)


def wait_for_lines(journal: Path, num_lines: int, process: subprocess.Popen, timeout_s: float = 120) -> bool:
    """Until the journal has that many lines; False when the process was faster."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            return False
        if journal.is_file() and len(journal.read_bytes().splitlines()) >= num_lines:
            return True
        time.sleep(0.002)
    raise AssertionError("the merge made no progress")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_driver_killed_at_random_moments(
    num_workers: int, settings: dict, whole: dict[str, bytes], tmp_path: Path
) -> None:
    config = tmp_path / "merge.yaml"
    config.write_text(json.dumps(settings | {"job": {"num_workers": num_workers, "memory_gib": 1}}))
    journal = tmp_path / ".merged.partial/journal.jsonl"
    chance = random.Random(num_workers)
    kills = 0
    lines = 1
    for _ in range(2 if num_workers == 0 else 1):
        process = start(config)
        try:
            if wait_for_lines(journal, lines + chance.randint(1, 2), process):
                time.sleep(chance.random() * 0.01)
                process.send_signal(signal.SIGKILL)
                kills += 1
        finally:
            process.kill()
            process.wait()
        lines = len(journal.read_bytes().splitlines()) if journal.is_file() else lines
    assert kills
    run(settings)
    assert output_bytes(tmp_path / "merged") == whole


# the queue


def test_the_queue_keeps_to_the_memory_of_each_node() -> None:
    bundles = [Bundle((i,), None, 10 - i, 0, memory) for i, memory in enumerate((6, 5, 4, 1))]
    queue = Queue(bundles, 10)
    assert queue.take("a") == bundles[0]
    assert queue.take("a") == bundles[2]  # the next longest does not fit beside it
    assert queue.take("a") is None
    assert queue.take("b") == bundles[1]
    queue.give_back(bundles[0], "a")
    assert queue.take("a") == bundles[0]  # what a dead worker left comes first
    queue.finish(bundles[2], "a")
    assert queue.take("a") == bundles[3]
    assert len(queue) == 0


def test_makespan_by_longest_first() -> None:
    assert makespan_s([3, 3, 2, 2, 2], 2) == 7
    assert makespan_s([3, 3, 2, 2, 2], 1) == 12
    assert makespan_s([], 3) == 0


def test_longest_first(settings: dict) -> None:
    plan = prepared_merge(settings).plan
    flops = [task.cost.flops for task in plan.longest_first]
    assert flops == sorted(flops, reverse=True)
    assert flops[0] > 0
