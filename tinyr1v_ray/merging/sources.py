"""One tensor of the base and of every expert, read in blocks of whole rows as W_0 and task vectors in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

import torch
from torch import Tensor

from tinyr1v_ray.errors import MergeInputError
from tinyr1v_ray.files.safetensors_file import TensorRef
from tinyr1v_ray.merging.accounting import Source
from tinyr1v_ray.merging.blocks import row_blocks, rows_per_block
from tinyr1v_ray.merging.lora import LowRankRef
from tinyr1v_ray.merging.plan import TensorTask
from tinyr1v_ray.merging.task_vectors import LowRank, TaskVector, Vectors
from tinyr1v_ray.merging.tensor_values import DTYPES, open_input, read_rows


class TensorSource:
    """Opens the files of one task; a context manager. Blocks are [1 + K, n]: W_0, then tau_1 .. tau_K.

    Each pass over `blocks` reads the files, unless `hold` has read them into memory.
    """

    def __init__(self, task: TensorTask) -> None:
        self._task = task
        self.num_experts = len(task.experts)
        self.rows = task.shape[0] if task.shape else 1
        self.columns = task.base.numel // max(self.rows, 1)
        self._stored = [index for index, ref in enumerate(task.experts) if isinstance(ref, TensorRef)]
        self._files = ExitStack()
        self._descriptors: dict[str, int] = {}
        self._low_rank: dict[int, LowRank] = {}
        self._buffers: dict[int, Tensor] = {}
        self._held: Tensor | None = None

    def __enter__(self) -> Self:
        for ref in (self._task.base, *self._task.experts):
            if isinstance(ref, TensorRef) and ref.path not in self._descriptors:
                self._descriptors[ref.path] = self._files.enter_context(open_input(ref)).fileno()
        for index, ref in enumerate(self._task.experts):
            if isinstance(ref, LowRankRef):
                self._low_rank[index] = _finite(ref.read(torch.float32, self._task.base), ref, index)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def hold(self) -> None:
        """Read W_0 and the stored experts' task vectors into memory, and require that all are finite."""
        held = torch.empty(1 + len(self._stored), self.rows * self.columns)
        rows = [0, *(1 + index for index in self._stored)]
        for _, begin, block in self.blocks():
            if not torch.isfinite(block.sum()):  # one sum finds any; only then is the culprit looked for
                self.require_finite(block)
            for target, row in zip(held[:, begin : begin + block.shape[1]], rows, strict=True):
                target.copy_(block[row])
        self._held = held

    def blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(number, first element, block), to be read only. The block is a buffer, overwritten by the next."""
        if self._held is not None and len(self._stored) == self.num_experts:
            for number, row, last in row_blocks(self.rows, self.columns):
                yield number, row * self.columns, self._held[:, row * self.columns : last * self.columns]
            return
        buffer = torch.empty(1 + self.num_experts, self._block_elements)
        for number, row, last in row_blocks(self.rows, self.columns):
            block = buffer[:, : (last - row) * self.columns]
            if self._held is None:
                self._read_block(row, last, block)
            else:
                held = self._held[:, row * self.columns : last * self.columns]
                for target, values in zip((0, *(1 + index for index in self._stored)), held, strict=True):
                    block[target] = values
            self._fill_unstored(row, last, block)
            yield number, row * self.columns, block

    @property
    def _block_elements(self) -> int:
        return min(rows_per_block(self.columns), self.rows) * self.columns

    def _read_block(self, row: int, last: int, block: Tensor) -> None:
        """W_0 and the stored experts' rows."""
        begin, end = row * self.columns, last * self.columns
        base = self._read(self._task.base, begin, end)
        block[0] = base  # a read is over before the next one, which takes the same buffer
        wide = torch.float64 in {_dtype(ref) for ref in (self._task.base, *self._task.experts)}
        base = base.double() if wide else base
        for index in self._stored:
            ref = self._task.experts[index]
            assert isinstance(ref, TensorRef)
            weight = self._read(ref, begin, end)
            block[1 + index] = weight.double() - base if wide else weight
        if not wide:  # the difference of the float32 values is the same whichever is converted when
            for index in self._stored:
                block[1 + index].sub_(block[0])

    def _fill_unstored(self, row: int, last: int, block: Tensor) -> None:
        """The rows of adapters, and of experts that leave this tensor alone."""
        for index, ref in enumerate(self._task.experts):
            if ref is None:
                block[1 + index] = 0
            elif isinstance(ref, LowRankRef):
                factors = self._low_rank[index]
                out = block[1 + index].view(last - row, self.columns)
                torch.mm(factors.left[row:last], factors.right, out=out)

    def _read(self, ref: TensorRef, begin: int, end: int) -> Tensor:
        if ref.item_bytes not in self._buffers:
            self._buffers[ref.item_bytes] = torch.empty(self._block_elements * ref.item_bytes, dtype=torch.uint8)
        return read_rows(self._descriptors[ref.path], ref, begin, end, self._buffers[ref.item_bytes])

    def require_finite(self, block: Tensor) -> None:
        """Raise MergeInputError that names the owner of a NaN or Inf in a block."""
        for index, values in enumerate(block):
            if not bool(torch.isfinite(values).all()):
                ref = self._task.base if index == 0 else self._task.experts[index - 1]
                assert ref is not None
                raise non_finite(ref, "the base" if index == 0 else f"expert {index - 1}", self._task.name)

    def vectors(self, device: str) -> tuple[Vectors, list[int]]:
        """(task vectors of the experts that hold this tensor, their numbers), after `hold`.

        Low-rank experts stay low-rank; without any, the task vectors are one tensor [K, out, in], on the CPU the very
        memory that is held.
        """
        assert self._held is not None
        tensors = self._held[1:].view(len(self._stored), self.rows, self.columns).to(device)
        if not self._low_rank:
            return tensors, self._stored
        by_number: dict[int, TaskVector] = dict(zip(self._stored, tensors, strict=True))
        for index, factors in self._low_rank.items():
            by_number[index] = LowRank(factors.left.to(device), factors.right.to(device))
        present = sorted(by_number)
        return [by_number[index] for index in present], present


def _dtype(source: Source) -> torch.dtype | None:
    return DTYPES[source.dtype] if isinstance(source, TensorRef) else None


def _finite(factors: LowRank, ref: LowRankRef, expert: int) -> LowRank:
    for part, stored in ((factors.left, ref.left), (factors.right, ref.right)):
        if not bool(torch.isfinite(part).all()):
            raise non_finite(stored, f"expert {expert}", stored.name)
    return factors


def non_finite(ref: TensorRef | LowRankRef, owner: str, name: str) -> MergeInputError:
    path = ref.path if isinstance(ref, TensorRef) else ref.left.path
    return MergeInputError(
        f"{path}: {name} of {owner} holds NaN or Inf; all weights must be finite; "
        "use an earlier checkpoint of that model"
    )
