"""LoRA experts: PEFT adapter folders, read as low-rank task vectors without writing a merged copy.

tau = scaling * B A with scaling = alpha / r, or alpha / sqrt(r) for rank-stabilised adapters (peft's `use_rslora`).
What an adapter can hold beside plain LoRA (DoRA magnitudes, biases, convolutions) is refused by name, never skipped.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tinyr1v_ray.errors import ModelError
from tinyr1v_ray.files.safetensors_file import TensorRef, read_header
from tinyr1v_ray.merging.checkpoint_folder import read_json
from tinyr1v_ray.merging.names import canonical_name
from tinyr1v_ray.merging.task_vectors import LowRank
from tinyr1v_ray.merging.tensor_values import MERGEABLE, read_tensor

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<side>A|B)(\.default)?\.weight$")
_EMBEDDING_FACTOR = re.compile(r"^(?P<module>.+)\.lora_embedding_(?P<side>A|B)(\.default)?$")


@dataclass(frozen=True)
class LowRankRef:
    """tau = scaling * left @ right; for an adapted embedding the stored factors are (B, A) of the transposed weight."""

    left: TensorRef
    right: TensorRef
    scaling: float
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.left.shape[0], self.right.shape[1]
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def rank(self) -> int:
        return self.right.shape[0]

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + self.right.nbytes

    def read(self, dtype: torch.dtype) -> LowRank:
        """The factors, scaled, in `dtype`."""
        left, right = read_tensor(self.left).to(dtype), read_tensor(self.right).to(dtype)
        if self.transposed:
            left, right = right.T.contiguous(), left.T.contiguous()
        return LowRank(left * self.scaling, right)


@dataclass(frozen=True)
class AdapterFolder:
    """Low-rank deltas, and whole replacement tensors (`modules_to_save`), by canonical name."""

    path: Path
    config: dict[str, Any]
    deltas: dict[str, LowRankRef]
    replaced: dict[str, TensorRef] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        return [self.path / ADAPTER_WEIGHTS]


def is_adapter(path: Path) -> bool:
    """Whether the folder is a PEFT adapter rather than a full checkpoint."""
    return (path / ADAPTER_CONFIG).is_file()


def open_adapter(path: Path) -> AdapterFolder:
    """Read the adapter's config and header; raises ModelError for anything that is not plain LoRA."""
    config = read_json(path / ADAPTER_CONFIG)
    _check_config(path, config)
    refs = read_header(path / ADAPTER_WEIGHTS)
    factors: dict[tuple[str, bool], dict[str, TensorRef]] = {}
    replaced: dict[str, TensorRef] = {}
    for name, ref in refs.items():
        match = _FACTOR.match(name)
        embedded = _EMBEDDING_FACTOR.match(name)
        found = match or embedded
        if found:
            factors.setdefault((found["module"], embedded is not None), {})[found["side"]] = ref
        elif "lora_" in name:
            raise ModelError(f"{path}: tensor {name} is not plain LoRA; only A and B factors are read; merge it first")
        else:
            replaced[canonical_name(name.replace(".modules_to_save.default.", ".").replace(".base_layer.", "."))] = ref
    deltas = {}
    for (module, transposed), sides in factors.items():
        deltas[canonical_name(module + ".weight")] = _delta(path, config, module, transposed, sides)
    return AdapterFolder(path, config, deltas, replaced)


def _check_config(path: Path, config: dict[str, Any]) -> None:
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        raise ModelError(f"{path} is a {config['peft_type']} adapter; only LORA is read; merge it into a model first")
    for key in ("use_dora", "fan_in_fan_out", "lora_bias"):
        if config.get(key):
            raise ModelError(f"{path} has {key}; only plain LoRA is read; merge it into a model first")
    if not (path / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"{path} has no {ADAPTER_WEIGHTS}; an adapter folder needs it; save it as safetensors")


def _delta(
    path: Path, config: dict[str, Any], module: str, transposed: bool, sides: dict[str, TensorRef]
) -> LowRankRef:
    if set(sides) != {"A", "B"}:
        raise ModelError(f"{path}: {module} has only lora_{next(iter(sides))}; both factors are needed; fetch it again")
    left, right = sides["B"], sides["A"]
    fits = len(left.shape) == len(right.shape) == 2 and left.shape[1] == right.shape[0]
    if not fits or left.dtype not in MERGEABLE or right.dtype not in MERGEABLE:
        raise ModelError(
            f"{path}: {module} has factors B {left.dtype} {list(left.shape)} and A {right.dtype} {list(right.shape)}; "
            "they must be floating [out, r] and [r, in]; merge the adapter into a model first"
        )
    rank = right.shape[0]
    if rank == 0:
        raise ModelError(f"{path}: {module} has rank 0; a factor needs at least one row; fetch it again")
    alpha = float(_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", rank)))
    return LowRankRef(left, right, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank), transposed)


def _pattern(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """peft's rule: the first key that matches the end of the module's name as a regular expression."""
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
