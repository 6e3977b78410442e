"""What is finished, on disk: one JSON line per task or hashed input, appended when its bytes are written.

A line is believed only if the bytes on disk still have its hash, so nothing needs to be flushed before it: a merge
killed anywhere, machine included, redoes what is not provably there, and ends in the same bytes.

Two hashes are in use. Inputs have the SHA-256 of the whole file, which is what model hubs and `sha256sum` show. Output
tensors, whose hash has to find torn and damaged writes, have the 128-bit XXH3 of their bytes, many times faster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from tinyr1v_ray.errors import CheckpointError, RunFolderError
from tinyr1v_ray.files.safetensors_file import read_header
from tinyr1v_ray.merging.layout import Place
from tinyr1v_ray.merging.plan import MergePlan
from tinyr1v_ray.merging.records import TensorRecord
from tinyr1v_ray.merging.tensor_values import DTYPES

JOURNAL = "journal.jsonl"
_BLOCK_BYTES = 1 << 20
"""Read at once: what stays in the cache until it is hashed."""


@dataclass
class Journal:
    """Finished tasks' records and input hashes; `append` writes through to the file."""

    path: Path
    records: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    input_hashes: dict[str, str] = field(default_factory=dict)

    def append_task(self, index: int, records: Sequence[TensorRecord]) -> None:
        self.records[index] = [record.as_json() for record in records]
        self._append({"task": index, "records": self.records[index]})

    def append_file(self, path: str, sha256: str) -> None:
        self.input_hashes[path] = sha256
        self._append({"file": path, "sha256": sha256})

    def _append(self, line: dict[str, Any]) -> None:
        text = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        with self.path.open("ab") as file:
            file.write(text)

    def all_records(self) -> list[dict[str, Any]]:
        """In the order of the plan."""
        return [record for index in sorted(self.records) for record in self.records[index]]


def open_journal(folder: Path, plan: MergePlan) -> Journal:
    """A new journal, or the one of an interrupted merge of the same plan, reduced to what the disk confirms.

    Raises RunFolderError when the folder belongs to another plan.
    """
    path = folder / JOURNAL
    if not path.is_file():
        path.write_text(json.dumps({"fingerprint": plan.fingerprint}) + "\n", encoding="utf-8")
        return Journal(path)
    lines = list(_lines(path))
    if not lines or lines[0].get("fingerprint") != plan.fingerprint:
        raise RunFolderError(
            f"{folder} holds an interrupted merge of other inputs or settings; it can only be continued unchanged; "
            "restore them, or start again with --no-resume"
        )
    journal = Journal(path)
    found = {int(line["task"]): line["records"] for line in lines if "task" in line}
    good = confirmed(plan, folder / OUTPUT, found)
    journal.records = {index: found[index] for index in good}
    journal.input_hashes = {line["file"]: line["sha256"] for line in lines if "file" in line}
    _rewrite(journal, plan)
    return journal


OUTPUT = "output"
"""The part of the working folder that becomes the output folder."""


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    """Whole lines; a line torn by a kill is the last and is dropped."""
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            return
        if isinstance(line, dict):
            yield line


def _rewrite(journal: Journal, plan: MergePlan) -> None:
    """Without lines that the disk contradicts, or a torn end that would swallow the next line."""
    lines: list[dict[str, Any]] = [{"fingerprint": plan.fingerprint}]
    lines += [{"file": path, "sha256": digest} for path, digest in journal.input_hashes.items()]
    lines += [{"task": index, "records": records} for index, records in journal.records.items()]
    temporary = journal.path.with_suffix(".new")
    temporary.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines), encoding="utf-8")
    temporary.replace(journal.path)


def confirmed(plan: MergePlan, output: Path, records: dict[int, list[dict[str, Any]]]) -> list[int]:
    """The tasks all of whose output bytes have the recorded hashes."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        good = pool.map(lambda index: _is_confirmed(plan, output, index, records[index]), records)
        return [index for index, fine in zip(records, good, strict=True) if fine]


def _is_confirmed(plan: MergePlan, output: Path, index: int, records: Sequence[dict[str, Any]]) -> bool:
    places = plan.tasks[index].places
    if len(records) != len(places):
        return False
    try:
        return all(
            _hash_place(output, place) == record["xxh3_128"] for place, record in zip(places, records, strict=True)
        )
    except OSError:
        return False


def _hash_place(output: Path, place: Place) -> str:
    """Of an output tensor's bytes on disk."""
    digest, left = xxhash.xxh3_128(), place.nbytes
    buffer = memoryview(bytearray(min(left, _BLOCK_BYTES)))
    with (output / place.shard).open("rb", buffering=0) as file:
        file.seek(place.offset)
        while left > 0 and (got := file.readinto(buffer[: min(left, len(buffer))])):
            digest.update(buffer[:got])
            left -= got
    return digest.hexdigest()


def verify_output(plan: MergePlan, output: Path, journal: Journal) -> None:
    """Re-open the finished output and hold it against plan and journal; raises CheckpointError on any difference."""
    missing = [task.name for task in plan.tasks if task.index not in journal.records]
    if missing:
        raise CheckpointError(
            f"{missing[0]} was never written; every tensor of the plan must be; start the merge again"
        )
    for shard in plan.shards:
        stored = read_header(output / shard.path)
        expected = {
            task.stored_name: (place.dtype, task.shape, place.offset)
            for task in plan.tasks
            for place in task.places
            if place.shard == shard.path
        }
        found = {name: (ref.dtype, ref.shape, ref.offset) for name, ref in stored.items() if ref.dtype in DTYPES}
        if found != expected:
            raise CheckpointError(
                f"{shard.path} has another layout than planned; it was changed; start the merge again"
            )
    good = set(confirmed(plan, output, journal.records))
    wrong = [task.name for task in plan.tasks if task.index not in good]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensors differ from the journal's hashes, first {wrong[0]}; the disk or another program "
            "changed them; start the merge again"
        )
