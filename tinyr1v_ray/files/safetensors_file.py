"""The header of a safetensors file: where each tensor lies; no value is read, and torch is not needed.

A file is a little-endian u64 header length, a JSON header name -> {dtype, shape, data_offsets}, then the data without
holes. A place is good for the very file whose header gave it: its size and time of change go with it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tinyr1v_ray.errors import CheckpointError

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Of the dtypes whose values are read anywhere; others have a place too."""
_MAX_HEADER_BYTES = 100_000_000
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class Stamp(NamedTuple):
    """By which a file that was changed or replaced is told from the one that was opened first."""

    nbytes: int
    changed_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Stamp:
        return cls(stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class TensorRef:
    """One stored tensor: a path and a place, never its values."""

    path: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Of its first byte, from the start of the file."""
    nbytes: int
    stamp: Stamp
    """Of the file when its header was read."""

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int:
        return self.nbytes // max(self.numel, 1)


def lacks_content(start: bytes) -> str:
    """Why a file that begins so holds nothing, as "what it is; rule; remedy"; empty for a file that holds something.

    An interrupted download leaves an empty file, a clone without git-LFS a pointer of three lines.
    """
    if not start:
        return "is empty; a model's files must be whole; fetch it again"
    if start.startswith(_LFS_POINTER):
        return "is a git-LFS pointer, not the file itself; a model's files must be whole; run `git lfs pull` there"
    return ""


def read_header(path: Path) -> dict[str, TensorRef]:
    """name -> place of every tensor in the file; raises CheckpointError for whatever does not add up."""
    try:
        with path.open("rb") as file:
            stamp = Stamp.of(os.fstat(file.fileno()))
            start = file.read(len(_LFS_POINTER))
            length = int.from_bytes(start[:8], "little")
            fits = length <= min(stamp.nbytes - 8, _MAX_HEADER_BYTES)
            file.seek(8)
            text = file.read(length if fits else 0)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); a shard must be readable; fetch it"
        ) from error
    if reason := lacks_content(start):
        raise CheckpointError(f"{path} {reason}")
    if not fits:
        raise CheckpointError(
            f"{path} has a header of {length} bytes in a file of {stamp.nbytes}; it is cut short or no safetensors "
            "file; fetch it again"
        )
    try:
        header = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} has a header that is no JSON; the file is corrupt; fetch it again") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a header that is no mapping; the file is corrupt; fetch it again")
    header.pop("__metadata__", None)
    refs = {name: _entry(path, name, entry, 8 + length, stamp) for name, entry in header.items()}
    _check_overlap(path, refs)
    return refs


def _entry(path: Path, name: str, entry: Any, start: int, stamp: Stamp) -> TensorRef:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: header entry {name} is malformed; the file is corrupt; fetch it again"
        ) from error
    item = ITEM_BYTES.get(dtype)
    wrong_size = item is not None and math.prod(shape) * item != end - begin
    if begin < 0 or end < begin or start + end > stamp.nbytes or wrong_size or min(shape, default=0) < 0:
        raise CheckpointError(
            f"{path}: {name} ({dtype} {list(shape)}) lies at bytes {begin} to {end} of {stamp.nbytes - start}; "
            "shape, dtype and place must agree; the file is cut short or corrupt, fetch it again"
        )
    return TensorRef(str(path), name, dtype, shape, start + begin, end - begin, stamp)


def _check_overlap(path: Path, refs: Mapping[str, TensorRef]) -> None:
    end, last = 0, ""
    for ref in sorted(refs.values(), key=lambda r: (r.offset, r.nbytes)):
        if ref.offset < end:
            raise CheckpointError(f"{path}: {last} and {ref.name} overlap; the file is corrupt; fetch it again")
        end, last = ref.offset + ref.nbytes, ref.name


def header_bytes(
    entries: Sequence[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The header of a file with these (name, dtype, shape, nbytes) in this order, without holes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    begin = 0
    for name, dtype, shape, nbytes in entries:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + nbytes]}
        begin += nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
