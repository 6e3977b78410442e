"""One tensor of the base and of every expert, read in blocks of whole rows as W_0 and task vectors in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from tinyr1v_ray.errors import MergeError
from tinyr1v_ray.merging.accounting import Source
from tinyr1v_ray.merging.lora import LowRankRef
from tinyr1v_ray.merging.plan import CHUNK_ELEMENTS, TensorTask
from tinyr1v_ray.merging.safetensors_file import DTYPES, TensorRef, read_rows
from tinyr1v_ray.merging.task_vectors import LowRank, Vectors


class TensorSource:
    """Opens the files of one task; a context manager. Blocks are [1 + K, n]: W_0, then tau_1 .. tau_K."""

    def __init__(self, task: TensorTask) -> None:
        self._task = task
        self.num_experts = len(task.experts)
        self.rows = task.shape[0] if task.shape else 1
        self.columns = task.base.numel // max(self.rows, 1)
        self.rows_per_block = max(1, CHUNK_ELEMENTS // max(self.columns, 1))
        self._files = ExitStack()
        self._descriptors: dict[str, int] = {}
        self._low_rank: dict[int, LowRank] = {}
        self._buffers: dict[int, Tensor] = {}

    def __enter__(self) -> Self:
        for ref in (self._task.base, *self._task.experts):
            if isinstance(ref, TensorRef) and ref.path not in self._descriptors:
                self._descriptors[ref.path] = self._files.enter_context(Path(ref.path).open("rb")).fileno()
        for index, ref in enumerate(self._task.experts):
            if isinstance(ref, LowRankRef):
                self._low_rank[index] = _finite(ref.read(torch.float32), ref, index)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(number, first element, block). The block is one buffer, overwritten by the next."""
        buffer = torch.empty(1 + self.num_experts, min(self.rows_per_block, self.rows) * self.columns)
        for number, row in enumerate(range(0, self.rows, self.rows_per_block)):
            last = min(row + self.rows_per_block, self.rows)
            block = buffer[:, : (last - row) * self.columns]
            self._fill(row, last, block)
            yield number, row * self.columns, block

    def task_vectors(self, block: Tensor) -> Tensor:
        """[K, n] of a block."""
        return block[1:]

    def _fill(self, row: int, last: int, block: Tensor) -> None:
        begin, end = row * self.columns, last * self.columns
        base = self._read(self._task.base, begin, end)
        block[0] = base  # a read is over before the next one, which takes the same buffer
        wide = torch.float64 in {_dtype(ref) for ref in (self._task.base, *self._task.experts)}
        base = base.double() if wide else base
        for index, ref in enumerate(self._task.experts):
            if ref is None:
                block[1 + index] = 0
            elif isinstance(ref, LowRankRef):
                factors = self._low_rank[index]
                out = block[1 + index].view(last - row, self.columns)
                torch.mm(factors.left[row:last], factors.right, out=out)
            else:
                weight = self._read(ref, begin, end)
                if wide:
                    block[1 + index] = weight.double() - base
                else:
                    torch.sub(weight.float(), block[0], out=block[1 + index])

    def _read(self, ref: TensorRef, begin: int, end: int) -> Tensor:
        if ref.item_bytes not in self._buffers:
            size = min(self.rows_per_block, self.rows) * self.columns * ref.item_bytes
            self._buffers[ref.item_bytes] = torch.empty(size, dtype=torch.uint8)
        return read_rows(self._descriptors[ref.path], ref, begin, end, self._buffers[ref.item_bytes])

    def require_finite(self, block: Tensor) -> None:
        """Raise MergeError that names the owner of a NaN or Inf in a block."""
        for index, values in enumerate(block):
            if not bool(torch.isfinite(values).all()):
                ref = self._task.base if index == 0 else self._task.experts[index - 1]
                assert ref is not None
                raise non_finite(ref, "the base" if index == 0 else f"expert {index - 1}", self._task.name)

    def load(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Vectors, list[int]]:
        """(W_0 flat float32, task vectors of the experts that hold this tensor, their numbers), all in memory.

        Low-rank experts stay low-rank; without any, the task vectors are one tensor [K, out, in].
        """
        present = [index for index, ref in enumerate(self._task.experts) if ref is not None]
        stored = [index for index in present if index not in self._low_rank]
        base = torch.empty(self._task.base.numel)
        stack = torch.empty(len(stored), self._task.base.numel, dtype=dtype)
        for _, begin, block in self.blocks():
            end = begin + block.shape[1]
            if not torch.isfinite(block.sum()):  # one sum finds any; only then is the culprit looked for
                self.require_finite(block)
            base[begin:end] = block[0]
            for position, index in enumerate(stored):
                stack[position, begin:end] = block[1 + index]
        tensors = stack.view(len(stored), self.rows, self.columns).to(device)
        if not self._low_rank:
            return base, tensors, present
        by_number = dict(zip(stored, tensors, strict=True))
        vectors = []
        for index in present:
            factors = self._low_rank.get(index)
            if factors is None:
                vectors.append(by_number[index])
            else:
                vectors.append(LowRank(factors.left.to(device, dtype), factors.right.to(device, dtype)))
        return base, vectors, present


def _dtype(source: Source) -> torch.dtype | None:
    return DTYPES[source.dtype] if isinstance(source, TensorRef) else None


def _finite(factors: LowRank, ref: LowRankRef, expert: int) -> LowRank:
    for part, stored in ((factors.left, ref.left), (factors.right, ref.right)):
        if not bool(torch.isfinite(part).all()):
            raise non_finite(stored, f"expert {expert}", stored.name)
    return factors


def non_finite(ref: TensorRef | LowRankRef, owner: str, name: str) -> MergeError:
    path = ref.path if isinstance(ref, TensorRef) else ref.left.path
    return MergeError(
        f"{path}: {name} of {owner} holds NaN or Inf; all weights must be finite; "
        "use an earlier checkpoint of that model"
    )
