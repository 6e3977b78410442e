"""Where the tensors of an output go: its shards, and each tensor's place in them, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinyr1v_ray.config.merge import MethodConfig
from tinyr1v_ray.files.safetensors_file import TensorRef, header_bytes
from tinyr1v_ray.merging.accounting import LedgerEntry


@dataclass(frozen=True)
class Place:
    """Where an output tensor goes: a shard, relative to the output folder, and the byte where it begins."""

    shard: str
    offset: int
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class Shard:
    """An output file, relative to the output folder: its header (which is the layout) and its size."""

    path: str
    header: bytes
    nbytes: int


def lay_out(
    entries: Sequence[LedgerEntry], name: str, method: MethodConfig, shard_bytes: int, places: dict[str, list[Place]]
) -> list[Shard]:
    """Fill shards in the base's order, wider types first (the format wants aligned tensors without holes)."""
    stored = {"float32": "F32", "bfloat16": "BF16"}[method.output_dtype]
    sized: list[tuple[LedgerEntry, TensorRef, str, int]] = []
    for entry in entries:
        assert entry.base is not None
        dtype = entry.base.dtype if entry.decision == "copy" and entry.base.numel else stored
        item = entry.base.item_bytes if dtype != stored else {"F32": 4, "BF16": 2}[stored]
        sized.append((entry, entry.base, dtype, entry.base.numel * item))
    sized.sort(key=lambda s: -(s[3] // max(s[1].numel, 1)))
    groups: list[list[tuple[LedgerEntry, TensorRef, str, int]]] = [[]]
    for item_ in sized:
        if groups[-1] and sum(s[3] for s in groups[-1]) + item_[3] > shard_bytes:
            groups.append([])
        groups[-1].append(item_)
    shards = []
    for number, group in enumerate(groups, start=1):
        file = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        path = f"{name}/{file}" if name else file
        header = header_bytes([(ref.name, dtype, ref.shape, nbytes) for _, ref, dtype, nbytes in group])
        offset = len(header)
        for entry, _, dtype, nbytes in group:
            places[entry.name].append(Place(path, offset, dtype, nbytes))
            offset += nbytes
        shards.append(Shard(path, header, offset))
    return shards
