"""The ledger: every tensor of base, experts and output, what becomes of it, and why.

The union of names is taken after both key layouts have been brought to one. What cannot be accounted for is an error
that names the tensor and a remedy: a merger that skips what it does not understand writes silently wrong models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from tinyr1v_ray.errors import MergeError, ModelError
from tinyr1v_ray.files.safetensors_file import TensorRef
from tinyr1v_ray.merging.checkpoint_folder import FullCheckpoint, holds_weights, open_checkpoint
from tinyr1v_ray.merging.lora import ADAPTER_CONFIG, AdapterFolder, LowRankRef, is_adapter, open_adapter
from tinyr1v_ray.merging.names import EMBEDDING, HEAD, Kind, kind_of
from tinyr1v_ray.merging.tensor_values import DTYPES, MERGEABLE, open_input, read_bytes_into, read_rows

Source = TensorRef | LowRankRef | None
"""An expert's version of a tensor: its weight, its low-rank delta, or nothing (an adapter that leaves it alone)."""

Expert = FullCheckpoint | AdapterFolder
Decision = Literal["merge", "copy", "refuse"]
_COMPARED_BYTES = 1 << 22


@dataclass(frozen=True)
class LedgerEntry:
    """One name of the union. `merge` is refined by the method into merged, averaged or copied."""

    name: str
    kind: Kind
    base: TensorRef | None
    experts: tuple[Source, ...]
    decision: Decision
    reason: str


def open_expert(path: Path) -> Expert:
    """A PEFT adapter folder or a full checkpoint; raises ModelError for a folder that is both."""
    if not is_adapter(path):
        return open_checkpoint(path)
    if holds_weights(path):
        raise ModelError(
            f"{path} holds an adapter ({ADAPTER_CONFIG}) and a full model's weights; an expert is one of them; "
            "move the one that is not meant elsewhere"
        )
    return open_adapter(path)


def build_ledger(base: FullCheckpoint, experts: Sequence[Expert]) -> list[LedgerEntry]:
    """One entry per name of the union, in the base's order; raises MergeError for what cannot be merged.

    Tied heads: where the config ties the head to the embedding, a stored head is a duplicate. It is refused (not
    written) when it equals its own embedding, and an error when it does not. (A head stored alone is the embedding,
    see `open_checkpoint`.)
    """
    if not experts:
        raise MergeError("no expert was given; a merge needs at least one; pass --expert DIR or set experts")
    tied_owners = [owner for owner in (base, *experts) if _has_tied_head(owner, base.tied)]
    for owner in tied_owners:
        _require_duplicate(owner, base)
    sources = [_sources(expert) for expert in experts]
    _check_vocabulary(base, experts, sources)
    for expert in experts:
        _require_base_copies(expert, base)
    names = dict.fromkeys([*base.tensors, *(name for source in sources for name in source)])
    entries = []
    for name in names:
        if name == HEAD and tied_owners and base.tied:
            ref = base.tensors.get(HEAD)
            reason = "equals the embedding it is tied to, which is written once"
            entries.append(LedgerEntry(name, "head", ref, (None,) * len(experts), "refuse", reason))
            continue
        if name not in base.tensors:
            owners = [str(e.path) for e, source in zip(experts, sources, strict=True) if name in source]
            raise MergeError(
                f"{owners[0]} holds {name}, which the base lacks; experts must have the base's tensors; "
                "check that it was trained from this base"
            )
        entries.append(_entry(name, base, experts, sources))
    return entries


def _sources(expert: Expert) -> dict[str, Source]:
    if isinstance(expert, FullCheckpoint):
        return dict(expert.tensors)
    return {**expert.deltas, **expert.replaced}


def _entry(
    name: str, base: FullCheckpoint, experts: Sequence[Expert], sources: Sequence[dict[str, Source]]
) -> LedgerEntry:
    own = base.tensors[name]
    found: list[Source] = []
    for expert, source in zip(experts, sources, strict=True):
        ref = source.get(name)
        if ref is None and isinstance(expert, FullCheckpoint):
            raise MergeError(
                f"{expert.path} lacks {name}; a full checkpoint must hold every tensor of the base; "
                "export it again, or give its adapter folder"
            )
        if ref is not None and tuple(ref.shape) != own.shape:
            raise MergeError(
                f"{expert.path}: {name} has shape {list(ref.shape)} where the base has {list(own.shape)}; "
                "shapes must be equal; check that it was trained from this base"
            )
        found.append(ref)
    kind = kind_of(name, len(own.shape))
    if own.dtype in MERGEABLE and all(_is_float(ref) for ref in found):
        if own.numel == 0:
            return LedgerEntry(name, kind, own, tuple(found), "copy", "has no elements")
        return LedgerEntry(name, kind, own, tuple(found), "merge", "")
    _require_equal(name, own, experts, found)
    return LedgerEntry(name, kind, own, tuple(found), "copy", f"{own.dtype} values, equal in base and experts")


def _is_float(source: Source) -> bool:
    return source is None or isinstance(source, LowRankRef) or source.dtype in MERGEABLE


def _require_equal(name: str, own: TensorRef, experts: Sequence[Expert], found: Sequence[Source]) -> None:
    """Values that are no floating-point weights can only be copied, and only when all agree."""
    for owner, ref in [("the base", own), *((str(e.path), r) for e, r in zip(experts, found, strict=True))]:
        if isinstance(ref, TensorRef) and ref.dtype not in DTYPES:
            raise MergeError(
                f"{owner}: {name} is stored as {ref.dtype}; weights are merged from {', '.join(MERGEABLE)}; "
                "convert the checkpoint to bfloat16 or float32 first"
            )
        same = ref is None or (isinstance(ref, TensorRef) and ref.dtype == own.dtype and _equal_bytes(own, ref))
        if not same:
            raise MergeError(
                f"{owner}: {name} ({own.dtype} in the base) differs from the base; only floating-point tensors can be "
                "merged; make it equal to the base's, or convert it"
            )


def _equal_bytes(first: TensorRef, second: TensorRef) -> bool:
    if first.nbytes != second.nbytes:
        return False
    with Path(first.path).open("rb") as a, Path(second.path).open("rb") as b:
        for begin in range(0, first.nbytes, _COMPARED_BYTES):
            size = min(_COMPARED_BYTES, first.nbytes - begin)
            left, right = bytearray(size), bytearray(size)
            read_bytes_into(a.fileno(), first, begin, memoryview(left))
            read_bytes_into(b.fileno(), second, begin, memoryview(right))
            if left != right:
                return False
    return True


def _has_tied_head(owner: Expert, base_is_tied: bool) -> bool:
    if isinstance(owner, AdapterFolder):
        return base_is_tied and (HEAD in owner.replaced or HEAD in owner.deltas)
    return base_is_tied and HEAD in owner.tensors


def _require_duplicate(owner: Expert, base: FullCheckpoint) -> None:
    """A stored head under a tied config must equal the stored embedding, or one of the two would be lost."""
    if isinstance(owner, FullCheckpoint):
        head, embedding = owner.tensors[HEAD], owner.tensors.get(EMBEDDING)
        if embedding is None or head.dtype != embedding.dtype or not _equal_bytes(head, embedding):
            raise MergeError(
                f"{owner.path} holds {HEAD} that differs from its embedding, but the base ties the two; one would be "
                "lost; untie both models if the head was trained, else leave it out"
            )
        return
    sources = _sources(owner)
    if not _is_same_change(sources[HEAD], sources.get(EMBEDDING), base.tensors[EMBEDDING]):
        raise MergeError(
            f"{owner.path} changes {HEAD} otherwise than the embedding, which the base ties it to; a tied model cannot "
            "hold the head of its own that peft trained; untie the base and store its head, or leave the adapter out"
        )


def _is_same_change(head: Source, embedding: Source, base: TensorRef) -> bool:
    """Whole weights of the same bytes, or the same factors: peft's `ensure_weight_tying` stores them for both."""
    if isinstance(head, TensorRef) and isinstance(embedding, TensorRef):
        return head.dtype == embedding.dtype and _equal_bytes(head, embedding)
    if not (isinstance(head, LowRankRef) and isinstance(embedding, LowRankRef)) or head.start or embedding.start:
        return False
    first, second = head.read(torch.float32, base), embedding.read(torch.float32, base)
    return torch.equal(first.left, second.left) and torch.equal(first.right, second.right)


def moving_heads(base: FullCheckpoint, experts: Sequence[Expert]) -> list[str]:
    """What a merge does to a tied head that an adapter's training did not: lines to be told."""
    return [
        f"expert {index} ({expert.path}) changes the embedding, which the base also uses as its head: in the merged "
        "model the head moves with it, in peft's training it did not"
        for index, expert in enumerate(experts)
        if isinstance(expert, AdapterFolder) and base.tied and EMBEDDING in _sources(expert)
        if HEAD not in _sources(expert)
    ]


def _require_base_copies(expert: Expert, base: FullCheckpoint) -> None:
    """What an adapter holds of the frozen weights under its factors adds nothing to them, and tells another base."""
    copies = expert.copies if isinstance(expert, AdapterFolder) else {}
    for name, ref in copies.items():
        own = base.tensors.get(name)
        if own is not None and not _same_values(own, ref):
            raise MergeError(
                f"{expert.path}: {ref.name}, the frozen weight under the factors, is not the base's; a delta is added "
                "to the weight that it was trained on; check that it was trained from this base"
            )


def _same_values(first: TensorRef, second: TensorRef) -> bool:
    """In the coarser one of two floating types: a copy may have been saved in another."""
    if first.shape != second.shape or not (_is_float(first) and _is_float(second)):
        return False
    if first.dtype == second.dtype:
        return _equal_bytes(first, second)
    coarse = DTYPES[min(first.dtype, second.dtype, key=("BF16", "F16", "F32", "F64").index)]
    with open_input(first) as a, open_input(second) as b:
        for begin in range(0, first.numel, _COMPARED_BYTES):
            end = min(begin + _COMPARED_BYTES, first.numel)
            left, right = read_rows(a.fileno(), first, begin, end), read_rows(b.fileno(), second, begin, end)
            if not torch.equal(left.to(coarse), right.to(coarse)):
                return False
    return True


def _check_vocabulary(base: FullCheckpoint, experts: Sequence[Expert], sources: Sequence[dict[str, Source]]) -> None:
    own = base.tensors.get(EMBEDDING)
    for expert, source in zip(experts, sources, strict=True):
        ref = source.get(EMBEDDING)
        if own is not None and ref is not None and tuple(ref.shape) != own.shape:
            raise MergeError(
                f"{expert.path} has a vocabulary of {ref.shape[0]} x {ref.shape[1]} where the base has "
                f"{own.shape[0]} x {own.shape[1]}; vocabularies must be equal; resize it back before merging"
            )
