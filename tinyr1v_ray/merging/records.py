"""What is known of a tensor after its merge: norms, cosines, losses, retention, hash. One JSON mapping per record."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tinyr1v_ray.merging.amm import MergedLayer
from tinyr1v_ray.merging.plan import TensorTask, Treatment
from tinyr1v_ray.merging.rounding import retention
from tinyr1v_ray.merging.sanity import closeness


class DeltaTable:
    """Inner products, summed over blocks in float64: among W_0, tau_1 .. tau_K, and among m and the stored delta.

    A table [K + 3, K + 3] in that order; the products between the two groups are not taken and stay 0.
    """

    def __init__(self) -> None:
        self.products: list[list[float]] = []
        """Empty where nothing was added."""

    def add(self, block: Tensor, delta: Tensor, stored_delta: Tensor) -> None:
        """`block` is [1 + K, n]; the others are [n]."""
        rows = [*block, delta, stored_delta]
        size = len(rows)
        if not self.products:
            self.products = [[0.0] * size for _ in rows]
        for i, first in enumerate(rows):
            for j in range(0 if i < size - 2 else size - 2, i + 1):
                value = torch.dot(first, rows[j]).item()
                self.products[i][j] += value
                if i != j:
                    self.products[j][i] += value

    @property
    def finite(self) -> bool:
        return all(math.isfinite(value) for row in self.products for value in row)

    @property
    def finite_inputs(self) -> bool:
        """Whether W_0 and every task vector are."""
        return all(math.isfinite(self.products[i][i]) for i in range(len(self.products) - 2))


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of one output. Lists over experts have one entry per expert; None stands for "does not apply"."""

    index: int
    method: str
    name: str
    stored_name: str
    kind: str
    shape: tuple[int, ...]
    action: str
    rule: str
    reason: str
    xxh3_128: str
    """Of the stored bytes."""
    form: str | None = None
    seconds: float = 0.0
    base_norm: float | None = None
    delta_norms: tuple[float, ...] = ()
    delta_cosines: tuple[tuple[float, ...], ...] = ()
    norm_ratios: tuple[float, ...] = ()
    """||tau_i||/||W_0||, per expert."""
    base_cosines: tuple[float, ...] = ()
    """cos(W_i, W_0), per expert."""
    merged_norm: float | None = None
    growth: float | None = None
    """||m||/||sum tau||: far above 1 the optimiser has run into directions that no expert uses."""
    retention_cosine: float | None = None
    retention_norm_ratio: float | None = None
    loss_first: float | None = None
    loss_last: float | None = None
    weighted_experts: tuple[int, ...] = ()
    """The experts that the weights are about: those with a non-zero task vector here."""
    weights_first: tuple[float, ...] = ()
    weights_last: tuple[float, ...] = ()

    def with_seconds(self, seconds: float) -> TensorRecord:
        return replace(self, seconds=round(seconds, 4))

    def as_json(self) -> dict[str, Any]:
        """Without the fields that do not apply."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}


def make_record(
    task: TensorTask, treatment: Treatment, xxh3_128: str, table: DeltaTable, solution: tuple[MergedLayer | None, Any]
) -> TensorRecord:
    """Everything that the merge of one tensor by one method leaves to be told."""
    layer, present = solution
    record = TensorRecord(
        task.index, treatment.method, task.name, task.stored_name, task.kind, task.shape,
        treatment.action, treatment.rule, treatment.reason, xxh3_128, None if layer is None else layer.form,
    )  # fmt: skip
    products = table.products
    if not products:
        return record
    num = len(task.experts)
    record = _with_geometry(record, products, num)
    if layer is None or not layer.weights_path:
        return record
    moving = tuple(index for index in present if products[1 + index][1 + index] > 0)
    return replace(
        record,
        loss_first=layer.losses[0],
        loss_last=layer.losses[-1],
        weighted_experts=moving,
        weights_first=layer.weights_path[0],
        weights_last=layer.weights_path[-1],
    )


def _with_geometry(record: TensorRecord, products: list[list[float]], num: int) -> TensorRecord:
    experts = range(1, 1 + num)
    norms = [math.sqrt(max(products[i][i], 0.0)) for i in range(len(products))]
    near = [closeness(products[0][0], products[i][i], products[0][i]) for i in experts]
    summed_sq = sum(products[i][j] for i in experts for j in experts)
    kept = retention(products[num + 1][num + 1], products[num + 2][num + 2], products[num + 1][num + 2])
    cosine = [
        [products[i][j] / (norms[i] * norms[j]) if norms[i] * norms[j] > 0 else 0.0 for j in experts] for i in experts
    ]
    return replace(
        record,
        base_norm=norms[0],
        delta_norms=tuple(norms[i] for i in experts),
        delta_cosines=tuple(tuple(row) for row in cosine),
        norm_ratios=tuple(c.norm_ratio for c in near),
        base_cosines=tuple(c.cosine for c in near),
        merged_norm=norms[num + 1],
        growth=norms[num + 1] / math.sqrt(summed_sq) if summed_sq > 0 else None,
        retention_cosine=None if kept is None else kept.cosine,
        retention_norm_ratio=None if kept is None else kept.norm_ratio,
    )
