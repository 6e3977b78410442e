"""Values of stored tensors, read and written at known offsets.

So a worker can read one tensor, or some of its rows, and write one tensor into a shard that other workers write too.
Reads are plain preads: a file that shrinks meanwhile is an error, not a SIGBUS, and so is one that is another file than
the one whose header was read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from tinyr1v_ray.errors import CheckpointError, MergeInputError
from tinyr1v_ray.files.safetensors_file import Stamp, TensorRef

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
MERGEABLE = ("F64", "F32", "F16", "BF16")


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
