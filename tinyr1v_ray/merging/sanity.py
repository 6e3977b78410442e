"""Is every expert a child of this base? A merge with a stranger runs without complaint and yields gibberish.

A fine-tuned weight lies close to the base's: ||tau||/||W_0|| is 0.001 to 0.1 and cos(W_i, W_0) above 0.99. Weights of
another base are unrelated: about 1.4 and 0. The medians over the linear layers that the expert changes tell the two
apart; those that it leaves alone would say that any stranger is a child.

A third kind is no expert at all: the base itself, saved in another type. Its task vector is rounding noise, of a norm
like any other's (0.0016 ||W_0|| in bfloat16), and methods that weigh experts alike make room for it.
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
_ROUNDINGS = {
    "float16": ((11, -13),),
    "bfloat16": ((8, -125), (11, -13)),
}
"""Significant bits of a type, and the least exponent (as `frexp` counts) that has all of them. Where one model is in
bfloat16 the other may be in float16."""
_HALF_UNIT = 0.5 + 2**-4
"""Of the last place, by which rounding moves a number at most; a little more, for what was rounded twice."""


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


@dataclass(frozen=True)
class Sample:
    """Some rows of the tensors of one expert that differ from the base's."""

    found: tuple[Closeness, ...]
    """Of linear layers that training changed."""
    num_rounded: int
    """Linear layers that differ from the base's by rounding alone, among those looked at."""
    rounding: str
    """The type that they are rounded to; empty where there is none."""
    is_trained: bool
    """Whether any tensor, of any kind, differs by more than rounding."""


def take_sample(entries: Sequence[LedgerEntry], expert: int) -> Sample:
    """Enough to stop a foreign expert within a second: linear layers spread over the model, until a dozen changed ones
    are found. An expert of which none is changed by more than rounding is looked through whole."""
    stored = [entry for entry in entries if entry.decision == "merge" and isinstance(entry.experts[expert], TensorRef)]
    linear = [entry for entry in stored if entry.kind in MATRIX_KINDS]
    found: list[Closeness] = []
    roundings: list[str] = []
    for entry in _spread(linear):
        base, weight = _samples(entry, expert)
        if torch.equal(base, weight):
            continue
        if rounding := _rounding(base, weight):
            roundings.append(rounding)
            continue
        delta = weight - base
        table = [float(torch.dot(a, b)) for a, b in ((base, base), (delta, delta), (delta, base))]
        if all(math.isfinite(value) for value in table):
            found.append(closeness(*table))
        if len(found) == _NUM_SAMPLED_TENSORS:
            break
    others = (entry for entry in stored if entry.kind not in MATRIX_KINDS)
    is_trained = bool(found) or not roundings or any(_is_trained(*_samples(entry, expert)) for entry in others)
    return Sample(tuple(found), len(roundings), statistics.mode(roundings) if roundings else "", is_trained)


def _spread(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """All of them, in rounds that each go through the whole model."""
    rounds = -(-len(entries) // _NUM_SAMPLED_TENSORS)
    return [entry for first in range(rounds) for entry in entries[first::rounds]]


def _samples(entry: LedgerEntry, expert: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same elements of the base's tensor and of the expert's, in float64."""
    own, other = entry.base, entry.experts[expert]
    assert own is not None and isinstance(other, TensorRef)
    return _sample(own), _sample(other)


def _is_trained(base: torch.Tensor, weight: torch.Tensor) -> bool:
    return not (torch.equal(base, weight) or _rounding(base, weight))


def _rounding(base: torch.Tensor, weight: torch.Tensor) -> str:
    """The type to which one rounded would be the other, else nothing.

    No element may differ by more than about half a unit in the last place. Training moves weights near zero by more.
    """
    larger = torch.maximum(base.abs(), weight.abs())
    _, exponent = torch.frexp(larger)
    for name, types in _ROUNDINGS.items():
        units = sum(torch.ldexp(torch.ones_like(larger), exponent.clamp(min=least) - bits) for bits, least in types)
        if bool(((weight - base).abs() <= _HALF_UNIT * units).all()):
            return name
    return ""


def check_samples(experts: Sequence[str], samples: Sequence[Sample]) -> list[str]:
    """Raise MergeInputError for an expert that is the base in another type; lines about those that are so in part."""
    lines = []
    for index, (expert, sample) in enumerate(zip(experts, samples, strict=True)):
        if not sample.is_trained:
            raise MergeInputError(
                f"expert {index} ({expert}) is nothing but the base rounded to {sample.rounding}; an expert holds "
                "training, and rounding would be merged as if it were some; leave it out, or give what was trained"
            )
        if sample.num_rounded:
            lines.append(
                f"expert {index} ({expert}) differs from the base by rounding to {sample.rounding} alone in "
                f"{sample.num_rounded} of {sample.num_rounded + len(sample.found)} changed layers that were looked at; "
                "it is merged as if it were training; save the expert in the type of the base"
            )
    return lines


def _sample(ref: TensorRef) -> torch.Tensor:
    begin = (ref.numel - min(ref.numel, _SAMPLED_ELEMENTS)) // 2
    with open_input(ref) as file:
        return read_rows(file.fileno(), ref, begin, begin + min(ref.numel, _SAMPLED_ELEMENTS)).double()


def check_same_base(
    experts: Sequence[str], found: Sequence[Sequence[Closeness]], max_norm_ratio: float, min_cosine: float
) -> None:
    """Raise MergeInputError for an expert that by its medians is no child of the base, or an outlier among them.

    `found` are, for each expert, the linear layers to go by.
    """
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
