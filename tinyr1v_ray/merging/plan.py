"""The plan of a merge: one task per tensor with its cost, and a place for every output tensor. Pure: no weight is read.

Places (shard, offset) are fixed before anything is computed, so any worker can write any tensor at any time, and the
output's bytes depend neither on the number of workers nor on the order in which they finish.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from tinyr1v_ray.config.merge import MethodConfig
from tinyr1v_ray.errors import MergeError
from tinyr1v_ray.files.safetensors_file import Stamp, TensorRef
from tinyr1v_ray.merging.accounting import LedgerEntry, Source
from tinyr1v_ray.merging.blocks import CHUNK_ELEMENTS
from tinyr1v_ray.merging.costs import MatrixShape, choose_form
from tinyr1v_ray.merging.forms import FormName
from tinyr1v_ray.merging.layout import Place, Shard, lay_out
from tinyr1v_ray.merging.lora import LowRankRef
from tinyr1v_ray.merging.methods import ENTRYWISE, SOLVED
from tinyr1v_ray.merging.names import MATRIX_KINDS, Kind

Action = Literal["merged", "averaged", "copied", "refused"]
_HELD_BYTES = 384 << 20
"""Up to this size a tensor and its task vectors are held in memory where a survey (TIES', RAM+'s) reads them before."""


@dataclass(frozen=True)
class Treatment:
    """What one method does to one tensor."""

    method: str
    action: Action
    rule: str
    """A row of `methods.py`."""
    form: FormName | None
    reason: str


@dataclass(frozen=True)
class TensorTask:
    """One tensor for all methods. `treatments` and `places` run in parallel."""

    index: int
    name: str
    stored_name: str
    kind: Kind
    base: TensorRef
    experts: tuple[Source, ...]
    treatments: tuple[Treatment, ...]
    places: tuple[Place, ...]
    held: bool
    """Whether the tensor and its task vectors are read into memory, once; otherwise each pass reads them."""
    cost: TaskCost

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape


@dataclass(frozen=True)
class TaskCost:
    """What a task needs; `traffic_bytes` are those of elementwise arithmetic in memory."""

    flops: int
    traffic_bytes: int
    operations: int
    read_bytes: int
    write_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class MergePlan:
    """All that a worker needs to carry out any task."""

    tasks: tuple[TensorTask, ...]
    refused: tuple[LedgerEntry, ...]
    shards: tuple[Shard, ...]
    methods: dict[str, MethodConfig]
    functions: dict[str, str]
    """Custom methods, as `method.function` has them -> SHA-256 of their source."""
    device: Literal["cpu", "cuda"]
    threads_per_task: int
    fingerprint: str
    """Of everything that decides the output's bytes, the inputs' sizes and times included."""

    @property
    def write_bytes(self) -> int:
        return sum(shard.nbytes for shard in self.shards)

    @property
    def longest_first(self) -> list[TensorTask]:
        """Tasks by flops, then bytes: the schedule (longest processing time first)."""
        return sorted(self.tasks, key=lambda t: (-t.cost.flops, -t.cost.read_bytes, t.index))


def make_plan(
    ledger: Sequence[LedgerEntry],
    methods: Mapping[str, MethodConfig],
    *,
    shard_bytes: int,
    functions: Mapping[str, str] | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    threads_per_task: int = 1,
) -> MergePlan:
    """Tasks, places and fingerprint. Raises MergeError when nothing is left to write.

    `functions` is needed of a plan that is carried out, not of one that is only looked at.
    """
    entries = [entry for entry in ledger if entry.decision != "refuse" and entry.base is not None]
    if not entries:
        raise MergeError("the base holds no tensor; a merge needs weights; check the base folder")
    treatments = {
        entry.name: tuple(_treat(entry, name, method) for name, method in methods.items()) for entry in entries
    }
    shards: list[Shard] = []
    places: dict[str, list[Place]] = {entry.name: [] for entry in entries}
    for name, method in methods.items():
        shards.extend(lay_out(entries, name, method, shard_bytes, places))
    tasks = []
    for index, entry in enumerate(entries):
        assert entry.base is not None
        held = _is_held(entry, treatments[entry.name])
        cost = task_cost(entry, treatments[entry.name], methods, tuple(places[entry.name]), held)
        tasks.append(
            TensorTask(
                index, entry.name, entry.base.name, entry.kind, entry.base, entry.experts,
                treatments[entry.name], tuple(places[entry.name]), held, cost,
            )
        )  # fmt: skip
    refused = tuple(entry for entry in ledger if entry.decision == "refuse")
    plan = MergePlan(
        tuple(tasks), refused, tuple(shards), dict(methods), dict(functions or {}), device, threads_per_task, ""
    )
    return replace(plan, fingerprint=_fingerprint(plan))


def _treat(entry: LedgerEntry, name: str, method: MethodConfig) -> Treatment:
    """The method's policy for one tensor, as (action, rule) with a reason."""
    if entry.decision == "copy":
        return Treatment(name, "copied", "base", None, entry.reason)
    rule = method.name
    is_matrix = entry.kind in MATRIX_KINDS
    if is_matrix and entry.kind != "language" and method.vision != "optimise":
        return _by_rule(name, method.vision, f"method.vision is {method.vision}")
    if not is_matrix and method.others is not None:
        return _by_rule(name, method.others, f"method.others is {method.others}")
    if rule in ENTRYWISE:
        return _by_rule(name, rule, f"{rule} works entry by entry")
    if not is_matrix:
        return _by_rule(name, "average", f"{entry.kind} is no linear layer's matrix; {rule} averages it")
    if all(source is None for source in entry.experts):
        return Treatment(name, "copied", "base", None, "no expert changes it")
    form = None
    if rule in ("amm", "wudi") and method.solver == "adam":
        form = choose_form(_matrix_shape(entry), method.amm) if method.form == "auto" else method.form
    return Treatment(name, "merged", rule, form, f"{entry.kind} linear layer")


def _by_rule(name: str, rule: str, reason: str) -> Treatment:
    action: Action = {"base": "copied", "average": "averaged"}.get(rule, "merged")  # type: ignore[assignment]
    return Treatment(name, action, rule, None, reason)


def _matrix_shape(entry: LedgerEntry, every_expert: bool = False) -> MatrixShape:
    """With the experts that change it, or all."""
    assert entry.base is not None
    rows, columns = entry.base.shape
    sources = [source for source in entry.experts if every_expert or source is not None]
    return MatrixShape(rows, columns, tuple(s.rank if isinstance(s, LowRankRef) else None for s in sources))


def _held_bytes(entry: LedgerEntry) -> int:
    """Of the base and the experts with weights of their own, in float32."""
    assert entry.base is not None
    return 4 * entry.base.numel * (1 + sum(isinstance(source, TensorRef) for source in entry.experts))


def _is_held(entry: LedgerEntry, treatments: Sequence[Treatment]) -> bool:
    """Where a method needs the whole matrix, and where one would read it again and it is not too large."""
    rules = {treatment.rule for treatment in treatments}
    is_read_again = any(rule in ENTRYWISE and ENTRYWISE[rule].num_passes for rule in rules)
    return not rules.isdisjoint(SOLVED) or (is_read_again and _held_bytes(entry) <= _HELD_BYTES)


def task_cost(
    entry: LedgerEntry,
    treatments: Sequence[Treatment],
    methods: Mapping[str, MethodConfig],
    places: Sequence[Place],
    held: bool,
) -> TaskCost:
    """Sums over methods; memory is that of the most demanding one."""
    assert entry.base is not None
    ref, num = entry.base, len(entry.experts)
    chunk = min(ref.numel, max(CHUNK_ELEMENTS, ref.numel // max(ref.shape[0], 1) if ref.shape else 1))
    streaming = 4 * chunk * (2 * num + 6)
    flops = traffic = operations = 0
    solving = _held_bytes(entry) if held else 0
    for treatment in treatments:
        traffic += 4 * ref.numel * (3 * num + 8)
        if treatment.rule in SOLVED:
            row = SOLVED[treatment.rule]
            cost = row.cost(_matrix_shape(entry, row.every_expert), methods[treatment.method], treatment.form)
            flops, traffic = flops + cost.flops, traffic + cost.traffic_bytes
            operations += cost.steps * cost.step_operations
            solving = max(solving, cost.peak_bytes)
        else:
            traffic += 4 * ref.numel * 3 * num * ENTRYWISE[treatment.rule].num_passes
    starts = [source.start_cost for source in entry.experts if isinstance(source, LowRankRef)]
    flops += sum(start[0] for start in starts)
    solving = max([solving, *(start[1] for start in starts)])
    read = ref.nbytes + sum(source.nbytes for source in entry.experts if source is not None)
    return TaskCost(flops, traffic, operations, read, sum(p.nbytes for p in places), streaming + solving)


def _fingerprint(plan: MergePlan) -> str:
    content = {
        "tasks": [{k: v for k, v in asdict(task).items() if k != "cost"} for task in plan.tasks],
        "shards": [[shard.path, shard.nbytes] for shard in plan.shards],
        "methods": {name: method.model_dump(mode="json") for name, method in plan.methods.items()},
        "functions": plan.functions,
        "device": plan.device,
        "threads": plan.threads_per_task,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _refs(task: TensorTask) -> list[TensorRef]:
    refs = [task.base]
    for source in task.experts:
        if isinstance(source, LowRankRef):
            refs.extend((source.left, source.right))
        elif source is not None:
            refs.append(source)
    return refs


def input_files(plan: MergePlan) -> dict[str, Stamp]:
    """Every weight file that the merge reads, by path in order, and what tells whether it was changed since."""
    return dict(sorted((ref.path, ref.stamp) for task in plan.tasks for ref in _refs(task)))
