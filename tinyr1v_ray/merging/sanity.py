"""Is every expert a child of this base? A merge with a stranger runs without complaint and yields gibberish.

A fine-tuned weight lies close to the base's: ||tau||/||W_0|| is 0.001 to 0.1 and cos(W_i, W_0) above 0.99. Weights of
another base are unrelated: about 1.4 and 0. The medians over the linear layers tell the two apart.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tinyr1v_ray.errors import MergeError, MergeInputError
from tinyr1v_ray.files.safetensors_file import TensorRef
from tinyr1v_ray.merging.accounting import LedgerEntry
from tinyr1v_ray.merging.names import MATRIX_KINDS
from tinyr1v_ray.merging.tensor_values import open_input, read_rows

_NUM_SAMPLED_TENSORS = 12
_SAMPLED_ELEMENTS = 1 << 16
_OUTLIER_FACTOR = 20.0
_OUTLIER_RATIO = 0.1


@dataclass(frozen=True)
class Closeness:
    """One expert's tensor against the base's: ||tau||/||W_0|| and cos(W_i, W_0)."""

    norm_ratio: float
    cosine: float


def check_distinct(experts: Sequence[Path]) -> None:
    """Raise MergeError for one folder that is named twice: its task vector would count twice."""
    seen: dict[Path, Path] = {}
    for expert in experts:
        first = seen.setdefault(expert.resolve(), expert)
        if first is not expert:
            raise MergeError(f"experts has {first} and {expert}, one folder; each is merged once; remove one")


def closeness(base_sq: float, delta_sq: float, delta_base: float) -> Closeness:
    """From ||W_0||^2, ||tau||^2 and <tau, W_0>. A zero base tensor says nothing: ratio 0, cosine 1."""
    expert_sq = max(base_sq + 2 * delta_base + delta_sq, 0.0)
    if base_sq <= 0 or expert_sq <= 0:
        return Closeness(0.0, 1.0)
    return Closeness(math.sqrt(delta_sq / base_sq), (base_sq + delta_base) / math.sqrt(base_sq * expert_sq))


def sample_closeness(entries: Sequence[LedgerEntry], expert: int) -> list[Closeness]:
    """A few rows of a few linear layers, spread over the model: enough to stop a foreign expert within a second."""
    usable = [e for e in entries if e.fate == "merge" and e.kind in MATRIX_KINDS and _is_stored(e, expert)]
    if len(usable) > _NUM_SAMPLED_TENSORS:
        step = len(usable) / _NUM_SAMPLED_TENSORS
        usable = [usable[int(index * step)] for index in range(_NUM_SAMPLED_TENSORS)]
    found = []
    for entry in usable:
        assert entry.base is not None
        own, other = entry.base, entry.experts[expert]
        assert isinstance(other, TensorRef)
        base, weight = _sample(own), _sample(other)
        delta = weight - base
        table = [float(torch.dot(a, b)) for a, b in ((base, base), (delta, delta), (delta, base))]
        if all(math.isfinite(value) for value in table):
            found.append(closeness(*table))
    return found


def _is_stored(entry: LedgerEntry, expert: int) -> bool:
    return isinstance(entry.experts[expert], TensorRef)


def _sample(ref: TensorRef) -> torch.Tensor:
    begin = (ref.numel - min(ref.numel, _SAMPLED_ELEMENTS)) // 2
    with open_input(ref) as file:
        return read_rows(file.fileno(), ref, begin, begin + min(ref.numel, _SAMPLED_ELEMENTS)).double()


def check_same_base(
    experts: Sequence[str], found: Sequence[Sequence[Closeness]], max_norm_ratio: float, min_cosine: float
) -> None:
    """Raise MergeInputError for an expert that by its medians is no child of the base, or an outlier among them."""
    ratios = [statistics.median(c.norm_ratio for c in each) if each else 0.0 for each in found]
    cosines = [statistics.median(c.cosine for c in each) if each else 1.0 for each in found]
    for index, (expert, ratio, cosine) in enumerate(zip(experts, ratios, cosines, strict=True)):
        others = [r for i, r in enumerate(ratios) if i != index and r > 0]
        outlier = bool(others) and ratio > max(_OUTLIER_RATIO, _OUTLIER_FACTOR * statistics.median(others))
        if ratio > max_norm_ratio or cosine < min_cosine or outlier:
            raise MergeInputError(
                f"expert {index} ({expert}) seems to come from another base: median ||delta||/||base|| {ratio:.3g}, "
                f"median cosine {cosine:.3g}; at most {max_norm_ratio:g} and at least {min_cosine:g} are expected, and "
                "no outlier among the experts; check which base it was trained from, or change max_norm_ratio and "
                "min_cosine"
            )
