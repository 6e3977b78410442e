"""The folder of an evaluation: what was asked of which model, so that a killed evaluation goes on and none is mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import xxhash

from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.folders import why_not_creatable
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark
from tinyr1v_ray.evaluation.benchmarks.stored import (
    ITEMS,
    RECORD,
    StoredAnswer,
    StoredItem,
    benchmark_folder,
    read_answers,
    read_items,
    read_record,
    write_answers,
    write_items,
)
from tinyr1v_ray.evaluation.reading import UNREADABLE
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import to_json

_BLOCK_BYTES = 8 << 20
_SAME = ("model", "num_items", "system_prompt", "question_template", "sampling")
"""Settings that every answer in a folder shares."""


def output_folder(config: EvaluateConfig) -> Path:
    """Where the evaluation lies: `output`, or `runs/evaluate-MODEL`."""
    if config.output:
        return Path(config.output).absolute()
    path = Path(config.model.path)
    name = f"{path.parent.name}-{path.name}" if path.name == "export" else path.name
    return (Path("runs") / f"evaluate-{name}").absolute()


def check_output(output: Path) -> None:
    """Raise RunFolderError when the folder cannot be made, or holds something else than an evaluation."""
    if reason := why_not_creatable(output):
        raise _not_writable(output, reason)
    if not holds_evaluation(output) and output.exists() and any(output.iterdir()):
        raise RunFolderError(f"{output} holds something else; an evaluation has a folder of its own; name another one")


def holds_evaluation(output: Path) -> bool:
    """Whether the folder is an evaluation's already."""
    return (output / RECORD).is_file()


def _not_writable(output: Path, reason: str | None) -> RunFolderError:
    return RunFolderError(f"{output} cannot be written: {reason}; answers go there; name another")


def open_output(config: EvaluateConfig, model_folder: Path, benchmarks: Sequence[Benchmark], output: Path) -> None:
    """Make the folder, or go on in it; raises RunFolderError when it holds something else.

    Benchmarks may be added to a folder, as long as the model and the way of asking are the same.
    """
    settings = config.model_dump(mode="json")
    record = {
        "same": {name: settings[name] for name in _SAME} | {"model_files": _fingerprint(model_folder)},
        "benchmarks": [benchmark.name for benchmark in benchmarks],
        "config": settings,
    }
    check_output(output)
    if holds_evaluation(output):
        before = _record(output)
        _check_same(output, before, record)
        record["benchmarks"] = list(dict.fromkeys([*before["benchmarks"], *record["benchmarks"]]))
        settings["user"] = before["config"]["user"] | settings["user"]
    try:
        output.mkdir(parents=True, exist_ok=True)
        settings["benchmarks"], settings["output"] = record["benchmarks"], str(output)
        replace_file(output / RECORD, to_json(record, indent=2) + "\n")
    except OSError as error:
        raise _not_writable(output, error.strerror) from error


def _record(output: Path) -> dict[str, Any]:
    """What `open_output` wrote; raises RunFolderError when it is missing or broken."""
    try:
        return read_record(output)
    except UNREADABLE as error:
        raise RunFolderError(
            f"{output / RECORD} cannot be read ({type(error).__name__}); the folder of an evaluation has it; name "
            "such a folder"
        ) from error


def recorded_config(output: Path, overrides: Sequence[str] = ()) -> EvaluateConfig:
    """The configuration of a stored evaluation, all its benchmarks included."""
    return parse_settings(EvaluateConfig, _record(output)["config"], overrides)


def kept_answers(folder: Path, items: Sequence[StoredItem], num_samples: int) -> list[StoredAnswer]:
    """Answers of an earlier attempt to items that are the same still, all samples of an item or none."""
    if not (folder / ITEMS).is_file():
        return []
    before = {stored.item.index: stored for stored in read_items(folder)}
    wanted = {stored.item.index for stored in items if before.get(stored.item.index) == stored}
    by_item: dict[str, list[StoredAnswer]] = {}
    for answer in read_answers(folder):
        by_item.setdefault(answer.prompt_id, []).append(answer)
    whole = (rows for index, rows in by_item.items() if index in wanted and len(rows) == num_samples)
    return [answer for rows in whole for answer in rows]


def prepare_folder(output: Path, name: str, items: Sequence[StoredItem], num_samples: int) -> tuple[Path, set[str]]:
    """The benchmark's folder with its items, and answers for those that cannot be asked; which items are done."""
    folder = benchmark_folder(output, name)
    kept = kept_answers(folder, items, num_samples)
    done = {answer.prompt_id for answer in kept}
    for stored in items:
        if stored.item.failure and stored.item.index not in done:
            empty = StoredAnswer(name, stored.item.index, 0, "", 0, "not asked", 0.0, 0.0, failure=stored.item.failure)
            kept += [replace(empty, sample=sample) for sample in range(num_samples)]
            done.add(stored.item.index)
    write_items(folder, items)
    write_answers(folder, kept)
    return folder, done


def _fingerprint(model_folder: Path) -> dict[str, str]:
    """Content of the weight files (XXH3): a folder whose weights were replaced is another model."""
    hashes = {}
    for path in sorted(model_folder.glob("*.safetensors")):
        digest = xxhash.xxh3_128()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        hashes[path.name] = digest.hexdigest()
    return hashes


def _check_same(output: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now["same"].items():
        if before["same"].get(name) != value:
            raise RunFolderError(
                f"{output} holds an evaluation with another {name}; answers of one folder are of one model, asked in "
                "one way; name another --output, or remove the folder"
            )
    for name, described in now["config"]["user"].items():
        if before["config"]["user"].get(name, described) != described:
            raise RunFolderError(
                f"{output} holds answers to another benchmark called {name}; a name means one benchmark; rename yours"
            )
