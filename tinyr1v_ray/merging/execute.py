"""One tensor task: read, merge by every method, write to the planned places, and say what was done.

Runs alike in this process, in a thread or in a Ray worker: it gets a plan and paths, never weights. Its output bytes
depend on the plan alone (device and thread count included), so tasks may run anywhere and in any order.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from tinyr1v_ray.config.merge import MethodConfig
from tinyr1v_ray.errors import MergeInputError
from tinyr1v_ray.merging.amm import MergedLayer
from tinyr1v_ray.merging.baselines import seed_of
from tinyr1v_ray.merging.custom_method import FUNCTION, of_every_expert, require_same_function
from tinyr1v_ray.merging.layout import Place
from tinyr1v_ray.merging.methods import SOLVED, BlockMerger, merge_matrix, survey
from tinyr1v_ray.merging.plan import MergePlan, TensorTask, Treatment
from tinyr1v_ray.merging.records import DeltaTable, TensorRecord, make_record
from tinyr1v_ray.merging.rounding import to_output
from tinyr1v_ray.merging.sources import TensorSource
from tinyr1v_ray.merging.task_vectors import Vectors
from tinyr1v_ray.merging.tensor_values import DTYPES, MERGEABLE, open_input, read_rows, write_at


def execute_task(plan: MergePlan, index: int, folder: Path) -> list[TensorRecord]:
    """Carry out task `index`, writing into the shards under `folder`; one record per method.

    Raises MergeInputError for non-finite inputs or results and for inputs that were changed, CheckpointError for
    files that cannot be read, MergeError for what a custom method raised.
    """
    task = plan.tasks[index]
    if torch.get_num_threads() != plan.threads_per_task:
        torch.set_num_threads(plan.threads_per_task)
    if task.base.dtype not in MERGEABLE or task.base.numel == 0:
        return [_copy(task, treatment, place, folder) for treatment, place in _pairs(task)]
    started = time.perf_counter()
    with TensorSource(task) as source:
        if task.held:
            source.hold()
        records = []
        if any(treatment.rule in SOLVED for treatment in task.treatments):
            records += _execute_solved(plan, task, source, folder)
        streamed = _streamed_outputs(plan, task, source, folder)
        if streamed:
            records += _emit(source, streamed)
    seconds = time.perf_counter() - started
    by_method = {record.method: record.with_seconds(seconds / len(records)) for record in records}
    return [by_method[treatment.method] for treatment in task.treatments]


def _pairs(task: TensorTask) -> list[tuple[Treatment, Place]]:
    return list(zip(task.treatments, task.places, strict=True))


def _execute_solved(plan: MergePlan, task: TensorTask, source: TensorSource, folder: Path) -> list[TensorRecord]:
    """Methods that need the whole matrix, one after the other on the same task vectors."""
    vectors, present = source.vectors(plan.device)
    records = []
    for treatment, place in _pairs(task):
        if treatment.rule not in SOLVED:
            continue
        method = plan.methods[treatment.method]
        if treatment.form is not None:
            method = method.model_copy(update={"form": treatment.form})
        given: Vectors = vectors
        if treatment.rule == FUNCTION:
            require_same_function(method.function, plan.functions[method.function])
            given = of_every_expert(vectors, present, len(task.experts))
        layer = merge_matrix(given, method, task.name)
        output = _Output(plan, task, treatment, place, folder)
        output.solution(layer.task_vector.reshape(-1).to("cpu", torch.float32), layer, present)
        records += _emit(source, [output])
    return records


def _streamed_outputs(plan: MergePlan, task: TensorTask, source: TensorSource, folder: Path) -> list[_Output]:
    """Outputs of entrywise rules. What one must know of the whole tensor is found here, once for all its methods."""
    outputs = [
        _Output(plan, task, treatment, place, folder)
        for treatment, place in _pairs(task)
        if treatment.rule not in SOLVED
    ]
    for rule, of_rule in groupby(sorted(outputs, key=_rule), key=_rule):
        same = list(of_rule)
        surveys = survey(rule, [each.method for each in same], lambda: (block[1:] for _, _, block in source.blocks()))
        for output, found in zip(same, surveys, strict=True):
            output.merger = BlockMerger(rule, output.method, task.name, found)
    return outputs


def _rule(output: _Output) -> str:
    return output.treatment.rule


@dataclass
class _Output:
    """One method's version of the tensor while it is written."""

    plan: MergePlan
    task: TensorTask
    treatment: Treatment
    place: Place
    folder: Path
    merger: BlockMerger | None = None
    merged: Tensor | None = None
    layer: MergedLayer | None = None
    wide: Tensor | None = None
    narrow: Tensor | None = None
    """Buffers for a block in float32 and in the output's dtype."""
    present: tuple[int, ...] = ()

    @property
    def method(self) -> MethodConfig:
        return self.plan.methods[self.treatment.method]

    def solution(self, merged: Tensor, layer: MergedLayer, present: list[int]) -> None:
        self.merged, self.layer, self.present = merged, layer, tuple(present)

    def delta(self, number: int, begin: int, block: Tensor) -> Tensor:
        """m of one block."""
        if self.merged is not None:
            return self.merged[begin : begin + block.shape[1]]
        assert self.merger is not None
        return self.merger.merge(block[1:], number)

    def stored(self, number: int, base: Tensor, delta: Tensor) -> Tensor:
        seed = None
        if self.method.rounding == "stochastic" and self.treatment.rule != "base":
            seed = seed_of(self.method.seed, "rounding", self.task.name, number)
        if self.wide is None or self.narrow is None or len(self.wide) < len(base):
            self.wide = torch.empty(len(base))
            self.narrow = self.wide.to(DTYPES[self.place.dtype])  # the same where that is float32
        weight = torch.add(base, delta, out=self.wide[: len(base)])
        return to_output(weight, self.narrow[: len(base)], seed)

    def stored_delta(self, base: Tensor, stored: Tensor) -> Tensor:
        """What the stored block, not needed any more, differs from the base by, float32."""
        assert self.wide is not None
        return torch.sub(self.wide[: len(base)].copy_(stored), base, out=self.wide[: len(base)])


def _emit(source: TensorSource, outputs: list[_Output]) -> list[TensorRecord]:
    """Write every output block by block; hashes and statistics are taken while a block is in the cache."""
    with ExitStack() as stack:
        files = [stack.enter_context((o.folder / o.place.shard).open("r+b")).fileno() for o in outputs]
        hashes = [xxhash.xxh3_128() for _ in outputs]
        tables = [DeltaTable() for _ in outputs]
        for number, begin, block in source.blocks():
            for output, file, digest, table in zip(outputs, files, hashes, tables, strict=True):
                delta = output.delta(number, begin, block)
                stored = output.stored(number, block[0], delta)
                digest.update(write_at(file, output.place.offset + begin * stored.itemsize, stored))
                table.add(block, delta, output.stored_delta(block[0], stored))
                if not table.finite_inputs:
                    source.require_finite(block)
    records = []
    for output, digest, table in zip(outputs, hashes, tables, strict=True):
        if not table.finite:
            raise MergeInputError(
                f"{output.task.name}: the result of {output.treatment.rule} is not finite in {output.place.dtype}; "
                "a model must hold finite weights; lower the learning rate or the scale, or use float32"
            )
        records.append(
            make_record(output.task, output.treatment, digest.hexdigest(), table, (output.layer, output.present))
        )
    return records


def _copy(task: TensorTask, treatment: Treatment, place: Place, folder: Path) -> TensorRecord:
    """Tensors that are no weights: the base's bytes."""
    with open_input(task.base) as source:
        values = read_rows(source.fileno(), task.base, 0, task.base.numel)
    with (folder / place.shard).open("r+b") as file:
        digest = xxhash.xxh3_128(write_at(file.fileno(), place.offset, values) if task.base.numel else b"")
    return make_record(task, treatment, digest.hexdigest(), DeltaTable(), (None, ()))


def allocate(plan: MergePlan, folder: Path) -> None:
    """Create the shards under `folder` with their headers, at full size; an existing shard of that size is kept."""
    for shard in plan.shards:
        path = folder / shard.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size == shard.nbytes:
            with path.open("rb") as file:
                if file.read(len(shard.header)) == shard.header:
                    continue
        with path.open("wb") as file:
            os.truncate(file.fileno(), shard.nbytes)
            file.write(shard.header)
