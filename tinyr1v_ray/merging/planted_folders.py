"""Model folders of experts with planted overlap, from folders of real ones. Models are small: whole ones in memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tinyr1v_ray.config.merge import OverlapCase
from tinyr1v_ray.errors import MergeInputError
from tinyr1v_ray.files.safetensors_file import TensorRef
from tinyr1v_ray.merging.accounting import LedgerEntry, build_ledger, open_expert
from tinyr1v_ray.merging.checkpoint_folder import SINGLE, open_checkpoint
from tinyr1v_ray.merging.planting import plant
from tinyr1v_ray.merging.tensor_values import read_tensor


def write_planted(
    base: Path, experts: Sequence[Path], shared: Path, overlap: float, case: OverlapCase, outputs: Sequence[Path]
) -> None:
    """One folder an expert in float32, with the base's config, tokenizer and templates; written anew where it exists.

    Raises MergeInputError for an adapter (a planted task vector has no low-rank factors).
    """
    weights: list[dict[str, Tensor]] = [{} for _ in outputs]
    folders = [open_expert(path) for path in (*experts, shared)]
    for entry in build_ledger(open_checkpoint(base), folders):
        if entry.base is None or entry.decision == "refuse":
            continue
        own = read_tensor(entry.base)
        if entry.decision == "copy":
            moved = [own] * len(outputs)
        else:
            *vectors_K, common = _task_vectors(entry, own)
            moved = [own.float() + vector for vector in plant(vectors_K, common, overlap, case, entry.name)]
        for tensors, tensor in zip(weights, moved, strict=True):
            tensors[entry.base.name] = tensor.contiguous()
    for output, tensors in zip(outputs, weights, strict=True):
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(base, output, ignore=shutil.ignore_patterns("*.safetensors*"))
        save_file(tensors, output / SINGLE, metadata={"format": "pt"})


def _task_vectors(entry: LedgerEntry, own: Tensor) -> list[Tensor]:
    found = []
    for source in entry.experts:
        if not isinstance(source, TensorRef):
            raise MergeInputError(
                f"{entry.name}: an expert is an adapter; overlap is planted in full checkpoints; merge the adapter "
                "into its base first"
            )
        found.append(read_tensor(source).float() - own.float())
    return found
