"""The safetensors format, byte by byte: where each tensor lies, read and written at known offsets.

A file is a little-endian u64 header length, a JSON header name -> {dtype, shape, data_offsets}, then the data without
holes. Offsets are read here directly, so that a worker can read one tensor, or some of its rows, and write one tensor
into a shard that other workers write too. Reads are plain preads: a file that shrinks meanwhile is an error, not a
SIGBUS. A place is good for the very file whose header gave it: its size and time of change go with it, and a file that
has others by the time it is read is an error too.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from tinyr1v_ray.errors import CheckpointError, MergeInputError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
MERGEABLE = ("F64", "F32", "F16", "BF16")
_ITEM_BYTES = {name: dtype.itemsize for name, dtype in DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000


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


def read_header(path: Path) -> dict[str, TensorRef]:
    """name -> place of every tensor in the file; raises CheckpointError for whatever does not add up."""
    try:
        with path.open("rb") as file:
            stamp = Stamp.of(os.fstat(file.fileno()))
            size = stamp.nbytes
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path} has a header of {length} bytes in a file of {size}; it is cut short or no safetensors "
                    "file; fetch it again"
                )
            header = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); a shard must be readable; fetch it"
        ) from error
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
    item = _ITEM_BYTES.get(dtype)
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


def header_bytes(entries: Sequence[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """The header of a file with these (name, dtype, shape, nbytes) in this order, without holes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, dtype, shape, nbytes in entries:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + nbytes]}
        begin += nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def open_input(ref: TensorRef) -> BinaryIO:
    """The tensor's file; raises MergeInputError when it is no longer the file whose header was read."""
    try:
        file = Path(ref.path).open("rb")  # noqa: SIM115 - the caller closes it
    except FileNotFoundError as error:
        raise changed(ref.path) from error
    if Stamp.of(os.fstat(file.fileno())) != ref.stamp:
        file.close()
        raise changed(ref.path)
    return file


def require_unchanged(path: str, stamp: Stamp) -> None:
    """Raise MergeInputError when the file now found under `path` is not the one that had this stamp."""
    try:
        now = Stamp.of(Path(path).stat())
    except FileNotFoundError as error:
        raise changed(path) from error
    if now != stamp:
        raise changed(path)


def changed(path: str) -> MergeInputError:
    return MergeInputError(
        f"{path} was changed, replaced or removed while the merge ran; inputs must stay as they are until it ends; "
        "start it again when they do"
    )


def read_bytes_into(descriptor: int, ref: TensorRef, begin: int, buffer: memoryview) -> None:
    """Fill `buffer` from byte `begin` of the tensor."""
    done = 0
    while done < len(buffer):
        got = os.preadv(descriptor, [buffer[done:]], ref.offset + begin + done)
        if got == 0:
            raise CheckpointError(f"{ref.path} ends inside {ref.name}; it shrank while it was read; fetch it again")
        done += got


def read_rows(descriptor: int, ref: TensorRef, begin: int, end: int, buffer: Tensor | None = None) -> Tensor:
    """Elements [begin, end) of the flattened tensor in its stored dtype, 1-D; in `buffer` (uint8) if one is given."""
    item = ref.item_bytes
    size = (end - begin) * item
    raw = torch.empty(size, dtype=torch.uint8) if buffer is None else buffer[:size]
    read_bytes_into(descriptor, ref, begin * item, memoryview(raw.numpy()))
    return raw.view(DTYPES[ref.dtype])


def read_tensor(ref: TensorRef) -> Tensor:
    """The whole tensor in its stored dtype and shape."""
    with open_input(ref) as file:
        return read_rows(file.fileno(), ref, 0, ref.numel).view(ref.shape)


def write_at(descriptor: int, offset: int, values: Tensor) -> memoryview:
    """Write a contiguous tensor's bytes at an offset of the file; returns them, for hashing."""
    view = memoryview(values.contiguous().view(-1).view(torch.uint8).numpy())
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
    return view
