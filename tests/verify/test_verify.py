"""`tinyr1v verify`: sound runs pass whatever their settings, and each kind of damage is named where it is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from recorded_run import edit, record_run

from tinyr1v_ray.checkpoint.manifest import RunState, verify, write_manifest
from tinyr1v_ray.cli.main import main
from tinyr1v_ray.errors import CheckpointError, RecordError, RunFolderError
from tinyr1v_ray.verify.recipe import verify_run
from tinyr1v_ray.verify.training import verify_training

CONTROLLED = ("run.max_staleness=1", "algorithm.name=quality_first", "algorithm.quality_first.rate=0.3")
GROUPS, METRICS = "groups.jsonl", "metrics.jsonl"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_run(tmp_path_factory.mktemp("sound") / "run", *CONTROLLED)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "run"))


def test_a_sound_run_gets_one_line_of_what_was_checked(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in sound.rglob("*")}
    assert main(["verify", str(sound)]) == 0
    assert re.fullmatch(
        rf"{sound}: 18 groups of 6 steps, once each and in order \(cursor 18\); staleness 1, allowed 1; "
        r"advantages and metrics follow from them; checkpoints: step 5, step 6\n",
        capsys.readouterr().out,
    )
    assert {path: path.stat().st_mtime_ns for path in sound.rglob("*")} == before


@pytest.mark.parametrize("name", ["lipo", "grpo", "dr_grpo", "dapo", "ddca", "length_penalty", "dler"])
def test_whatever_the_loop_records_is_sound(name: str, tmp_path: Path) -> None:
    """Also where groups are turned away (DAPO), answers were cut off, aborted or not scored, and windows overlap."""
    for seed in range(3):
        words = (f"run.max_staleness={seed}", f"algorithm.name={name}", "algorithm.dapo.max_replaced_share=99")
        folder = record_run(tmp_path / str(seed), *words, seed=seed)
        assert "of 6 steps, once each" in verify_training(folder)
    metrics = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    assert name != "dapo" or any(row["num_rejected_groups"] for row in metrics)


def test_a_resumed_run_and_one_that_was_just_killed_are_sound(tmp_path: Path) -> None:
    folder = record_run(tmp_path / "run", *CONTROLLED, "run.num_steps=3")
    with (folder / GROUPS).open("a") as file:  # killed while step 4 was recorded
        row = json.loads((folder / GROUPS).read_text().splitlines()[-1])
        file.write(json.dumps({**row, "step": 4}) + '\n{"step": 4, "vers')
    assert "9 groups of 3 steps" in verify_training(folder)
    record_run(folder, *CONTROLLED, seed=5, first_step=4)
    assert "18 groups of 6 steps" in verify_training(folder)


def lines_of(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return damage


def manifest_of(number: int, **changes: object) -> Callable[[Path], None]:
    """A checkpoint with another state, whole in itself."""

    def damage(folder: Path) -> None:
        checkpoint = folder / "checkpoints" / f"step-{number:06d}"
        state = vars(verify(checkpoint)) | changes
        (checkpoint / "manifest.json").unlink()
        write_manifest(checkpoint, RunState(**state))

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "lost group": (
        lines_of(GROUPS, lambda rows: rows[:7] + rows[8:]),
        r"line 8 of groups.jsonl holds group 8 \(math-1\) of step 3 where group 7 of step 3 is due",
    ),
    "lost end": (
        lines_of(GROUPS, lambda rows: rows[:-1]),
        "groups.jsonl lacks group 17 of step 6, which line 6 of metr",
    ),
    "repeated group": (
        lines_of(GROUPS, lambda rows: [*rows[:7], rows[6], *rows[8:]]),
        r"line 8 of groups.jsonl holds group 6 \(math-6\) of step 3 where group 7 of step 3 is due",
    ),
    "repeated prompt": (
        lambda folder: edit(folder / GROUPS, 3, prompt_id="math-1"),
        "line 3 of groups.jsonl holds math-1 of epoch 0 again",
    ),
    "wrong version": (
        lambda folder: edit(folder / GROUPS, 16, first_versions=[4, 4, 4, 3]),
        "line 16 of groups.jsonl was sampled under version 3 and trained by step 6, 2 versions late; run.max_stalen",
    ),
    "version of the future": (
        lambda folder: edit(folder / GROUPS, 16, last_versions=[6, 6, 6, 6]),
        "line 16 of groups.jsonl has version 6 and was sampled under versions . to 6 for step 6",
    ),
    "swapped groups": (
        lines_of(GROUPS, lambda rows: [rows[1], rows[0], *rows[2:]]),
        r"line 1 of groups.jsonl holds group 1 \(math-1\) of step 1 where group 0 of step 1 is due",
    ),
    "swapped steps": (
        lines_of(METRICS, lambda rows: [rows[0], rows[2], rows[1], *rows[3:]]),
        "line 2 of metrics.jsonl is of step 3 where step 2 is due",
    ),
    "swapped steps of groups": (
        lines_of(GROUPS, lambda rows: rows[:3] + rows[6:9] + rows[3:6] + rows[9:]),
        r"line 4 of groups.jsonl holds group 6 \(math-6\) of step 3 where group 3 of step 2 is due",
    ),
    "lost step": (lines_of(METRICS, lambda rows: rows[:-2]), "line 16 of groups.jsonl is past step 5, which metrics"),
    "edited reward": (
        lambda folder: edit(folder / GROUPS, 5, rewards=[1.0] * 4),
        "line 5 of groups.jsonl has advantages",
    ),
    "edited length": (lambda folder: edit(folder / GROUPS, 5, lengths=[1] * 3), "the records of step 2 are damaged"),
    "edited metric": (
        lambda folder: edit(folder / METRICS, 4, accuracy=0.9876),
        "line 4 of metrics.jsonl has accuracy 0.9876 where the groups of step 4 give [01]",
    ),
    "edited control": (
        lambda folder: edit(folder / METRICS, 2, beta=0.7),
        "line 2 of metrics.jsonl has beta 0.7 where",
    ),
    "damaged line": (lines_of(METRICS, lambda rows: ["{]\n", *rows[1:]]), "line 1 of metrics.jsonl is damaged"),
    "missing column": (lines_of(METRICS, lambda rows: ["{}\n", *rows[1:]]), "line 1 of metrics.jsonl has no step"),
    "checkpoint's cursor": (manifest_of(5, cursor=12), "step-000005 counts 12 groups as consumed; the records have 15"),
    "checkpoint's state": (manifest_of(6, advantages={"beta": 0.123}), "step-000006 has the state {'beta': 0.123}"),
    "checkpoint of another step": (manifest_of(6, step=4), "step-000006 is a checkpoint of step 4"),
    "summary": (
        lambda folder: (folder / "summary.json").write_text('{"before": [], "after": []}'),
        "summary.json has other metrics before training than evaluation/before.jsonl",
    ),
    "answers": (lines_of("evaluation/after.jsonl", lambda rows: ["7\n"]), "summary.json or evaluation/ is damaged"),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGES.values(), ids=DAMAGES)
def test_each_kind_of_damage_is_named_where_it_is(
    damage: Callable[[Path], None], named: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    with pytest.raises(RecordError, match=named):
        verify_training(folder)
    assert main(["verify", str(folder)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and re.match(f"tinyr1v: {named}", printed.err) and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: path.write_text("of st"), "weights has 5 bytes instead of 9"),
        (lambda path: path.write_text("of step 9"), "weights has another hash than the manifest says"),
        (lambda path: path.unlink(), "weights is missing"),
        (lambda path: (path.parent / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    ],
)
def test_a_checkpoint_that_is_not_as_it_was_written_is_named(
    damage: Callable[[Path], None], named: str, folder: Path
) -> None:
    damage(folder / "checkpoints" / "step-000006" / "weights")
    with pytest.raises(CheckpointError, match=named):
        verify_training(folder)


def test_a_folder_that_is_no_run_and_a_run_of_a_newer_version_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunFolderError, match=r"holds no config.yaml; the folder of a run has one"):
        list(verify_run(folder / "evaluation"))
    environment = json.loads((folder / "environment.json").read_text())
    environment["resumed"] = [{"packages": {"tinyr1v-ray": "9.1.0"}}]
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "config.yaml").write_text("of_the_future: true\n")
    assert main(["verify", str(folder)]) == 2
    assert "is a run of version 9.1.0, and this is version 0.1.0; " in capsys.readouterr().err
