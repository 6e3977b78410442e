"""The merge methods, a row each: how it merges, what it costs, and what it must know of a tensor before.

Entrywise rules work on any block of any tensor: `BlockMerger` is fed block by block and holds nothing but a block. How
a tensor is cut (`blocks.py`) belongs to the definition: DARE's masks are seeded by tensor, expert and block. Solved
ones need the whole matrix of a linear layer. A method is a function, mostly in a file of its own, and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyr1v_ray.config.merge import MethodConfig
from tinyr1v_ray.merging.amm import MergedLayer, merge_task_vectors
from tinyr1v_ray.merging.baselines import drop_and_rescale, elect_and_average, iso_c, magnitudes_at_densities, seed_of
from tinyr1v_ray.merging.blocks import Blocks
from tinyr1v_ray.merging.costs import Cost, MatrixShape, custom_cost, iso_c_cost, matrix_cost, spectral_cost
from tinyr1v_ray.merging.custom_method import FUNCTION, merge_by_function
from tinyr1v_ray.merging.forms import FormName
from tinyr1v_ray.merging.ram import merge_by_overlap, overlap_ratios
from tinyr1v_ray.merging.resmerge import resmerge, resmerge_cost
from tinyr1v_ray.merging.swudi import swudi
from tinyr1v_ray.merging.task_vectors import Vectors


@dataclass(frozen=True)
class Entrywise:
    """A rule for blocks [K, n]. `survey` finds a number an expert for each of several settings, in `num_passes` over
    the tensor."""

    merge: Callable[[Tensor, BlockMerger, int], Tensor]
    survey: Callable[[Blocks, Sequence[MethodConfig]], list[list[float]]] | None = None
    num_passes: int = 0


@dataclass(frozen=True)
class Solved:
    """A method for whole matrices; with `every_expert` it is also given zeros for those that leave the matrix alone."""

    merge: Callable[[Vectors, MethodConfig, str], MergedLayer]
    cost: Callable[[MatrixShape, MethodConfig, FormName | None], Cost]
    every_expert: bool = False


class BlockMerger:
    """One entrywise rule on one tensor."""

    def __init__(self, rule: str, method: MethodConfig, name: str, survey_K: Sequence[float] = ()) -> None:
        """`survey_K` is what the rule's survey found."""
        self.method, self.name, self.survey_K = method, name, survey_K
        self._row = ENTRYWISE[rule]
        self._factor = method.factor if rule == method.name else 1.0
        self._sum: Tensor | None = None

    def merge(self, block_KN: Tensor, number: int) -> Tensor:
        """m of one block [n]; `number` counts the tensor's blocks. The next call may reuse it."""
        merged = self._row.merge(block_KN, self, number)
        return merged if self._factor == 1 else merged.mul_(self._factor)

    def summed(self, block_KN: Tensor) -> Tensor:
        """The sum over experts, in a buffer."""
        size = block_KN.shape[1]
        if self._sum is None or len(self._sum) < size:
            self._sum = torch.empty(size)
        result = self._sum[:size].copy_(block_KN[0])
        for values in block_KN[1:]:
            result.add_(values)
        return result


def merge_matrix(task_vectors_K: Sequence[Tensor] | Vectors, method: MethodConfig, name: str = "") -> MergedLayer:
    """Merge one matrix by a solved method, scale included; `name` is for messages."""
    layer = SOLVED[method.name].merge(task_vectors_K, method, name)
    layer.task_vector.mul_(method.factor)
    return layer


def survey(rule: str, methods: Sequence[MethodConfig], blocks: Blocks) -> list[Sequence[float]]:
    """What an entrywise rule must know of the tensor, for each of the methods that use it."""
    row = ENTRYWISE[rule]
    return [() for _ in methods] if row.survey is None else [*row.survey(blocks, methods)]


def _adaptive(vectors_K: Vectors, method: MethodConfig, _: str) -> MergedLayer:
    return merge_task_vectors(vectors_K, method.amm, form=method.form, solver=method.solver, flow_time=method.flow_time)


def _adaptive_cost(shape: MatrixShape, method: MethodConfig, form: FormName | None) -> Cost:
    return matrix_cost(shape, method.amm, method.solver, form or "gram")


def _thresholds(blocks: Blocks, methods: Sequence[MethodConfig]) -> list[list[float]]:
    return magnitudes_at_densities(blocks, [method.density for method in methods])


def _unique_scales(blocks: Blocks, methods: Sequence[MethodConfig]) -> list[list[float]]:
    ratios = overlap_ratios(blocks, [method.threshold for method in methods])
    return [
        [1 + method.rescale * ratio for ratio in ratios_K] for method, ratios_K in zip(methods, ratios, strict=True)
    ]


def _by_overlap(block_KN: Tensor, merger: BlockMerger, _: int) -> Tensor:
    return merge_by_overlap(block_KN, merger.method.threshold, merger.survey_K or [1.0] * len(block_KN))


def _dropped(block_KN: Tensor, merger: BlockMerger, number: int) -> Tensor:
    seeds = [seed_of(merger.method.seed, "dare", merger.name, expert, number) for expert in range(len(block_KN))]
    return drop_and_rescale(block_KN, merger.method.drop, seeds)


ENTRYWISE: Mapping[str, Entrywise] = {
    "average": Entrywise(lambda block_KN, merger, _: merger.summed(block_KN).div_(len(block_KN))),
    "task_arithmetic": Entrywise(lambda block_KN, merger, _: merger.summed(block_KN)),
    "ties": Entrywise(lambda block_KN, merger, _: elect_and_average(block_KN, merger.survey_K), _thresholds, 2),
    "dare": Entrywise(_dropped),
    "ram": Entrywise(_by_overlap),
    "ram_plus": Entrywise(_by_overlap, _unique_scales, 1),
    "sum": Entrywise(lambda block_KN, merger, _: merger.summed(block_KN)),
    "base": Entrywise(lambda block_KN, merger, _: block_KN.new_zeros(block_KN.shape[1])),
}
"""`sum` and `base` are policies for tensors that a method leaves out, and no methods."""

SOLVED: Mapping[str, Solved] = {
    "amm": Solved(_adaptive, _adaptive_cost),
    "wudi": Solved(_adaptive, _adaptive_cost),
    "iso_c": Solved(lambda vectors_K, *_: MergedLayer(iso_c(vectors_K), (0.0,)), lambda shape, *_: iso_c_cost(shape)),
    "resmerge": Solved(
        lambda vectors_K, method, _: MergedLayer(
            resmerge(vectors_K, method.head_rank, method.head_budget, (method.beta_min, method.beta_max)), (0.0,)
        ),
        lambda shape, *_: resmerge_cost(shape),
    ),
    "swudi": Solved(
        lambda vectors_K, method, _: swudi(vectors_K, method.filter_time, method.keep),
        lambda shape, method, _: spectral_cost(shape, method.amm),
    ),
    FUNCTION: Solved(
        lambda vectors_K, method, name: MergedLayer(merge_by_function(vectors_K, method.function, name), (0.0,)),
        lambda shape, *_: custom_cost(shape),
        every_expert=True,
    ),
}
