"""LoRA experts: PEFT adapter folders, read as low-rank task vectors without writing a merged copy.

tau = s B A with s = alpha / r, or alpha / sqrt(r) for rank-stabilised adapters (peft's `use_rslora`), on a base that
the adapter's initialisation left as it was. PiSSA and OLoRA take a part of the base out, which is derived from the base
again (see `initialisation`). Whatever else an adapter can be (another initialisation that changes the base, DoRA
magnitudes, activated LoRA, trained tokens, biases, convolutions) is refused by name, never skipped.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyr1v_ray.errors import ModelError
from tinyr1v_ray.files.safetensors_file import TensorRef, read_header
from tinyr1v_ray.merging.checkpoint_folder import read_json
from tinyr1v_ray.merging.initialisation import Initialisation, start_cost, without_start
from tinyr1v_ray.merging.names import canonical_names
from tinyr1v_ray.merging.task_vectors import LowRank
from tinyr1v_ray.merging.tensor_values import MERGEABLE, read_tensor

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<side>A|B|embedding_A|embedding_B)(\.default)?(\.weight)?$")
_WRAPPER = "base_model.model."
_PEFT_ALPHA = 8
"""peft's `lora_alpha` where a config has none."""
_BASE_KEPT = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` that leave the base as it was."""
_NOT_PLAIN = (
    "use_dora", "fan_in_fan_out", "lora_bias", "use_bdlora", "kasa_config", "monteclora_config", "layer_replication",
    "megatron_config", "target_parameters", "trainable_token_indices",
)  # fmt: skip
"""Settings under which an adapter is more or less than s B A, but which peft can merge into a model."""
_NEVER_MERGED = ("alora_invocation_tokens", "arrow_config", "use_qalora")
"""Settings under which no weight does what the adapter does, such as to act on the tokens after an invocation alone."""


@dataclass(frozen=True)
class LowRankRef:
    """tau = scaling * left @ right; for an adapted embedding the stored factors are (B, A) of the transposed weight."""

    left: TensorRef
    right: TensorRef
    scaling: float
    transposed: bool = False
    start: Initialisation | None = None
    """The initialisation that took a part out of the base, which tau does not hold."""

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.left.shape[0], self.right.shape[1]
        return (columns, rows) if self.transposed else (rows, columns)

    @property
    def rank(self) -> int:
        return self.right.shape[0] * (2 if self.start else 1)

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + self.right.nbytes

    @property
    def start_cost(self) -> tuple[int, int]:
        """(flops, bytes in memory) that reading takes beyond the factors."""
        return start_cost(self.shape, self.right.shape[0]) if self.start else (0, 0)

    def read(self, dtype: torch.dtype, base: TensorRef) -> LowRank:
        """The factors, scaled, in `dtype`; `base` is the tensor that they adapt."""
        left, right = read_tensor(self.left).to(dtype), read_tensor(self.right).to(dtype)
        if self.transposed:
            left, right = right.T.contiguous(), left.T.contiguous()
        factors = LowRank(left * self.scaling, right)
        return without_start(factors, self.start, read_tensor(base), self.scaling) if self.start else factors


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter's tensors by canonical name."""

    path: Path
    config: dict[str, Any]
    deltas: dict[str, LowRankRef]
    replaced: dict[str, TensorRef]
    """Whole tensors in the place of the base's (`modules_to_save`, biases)."""
    copies: dict[str, TensorRef]
    """Whole tensors beside factors: what peft stores of an adapted embedding, the frozen weight under the factors."""

    @property
    def trained_from(self) -> str:
        """The base by the name that the adapter's trainer knew; empty where it is not told."""
        return str(self.config.get("base_model_name_or_path") or "")

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
    factors: dict[str, dict[str, TensorRef]] = {}
    whole: dict[str, TensorRef] = {}
    for name, ref in refs.items():
        if found := _FACTOR.match(name):
            factors.setdefault(found["module"] + ".weight", {})[found["side"]] = ref
        elif "lora_" in name:
            raise ModelError(f"{path}: tensor {name} is not plain LoRA; only A and B factors are read; merge it first")
        else:
            whole[name] = ref
    deltas = {
        canonical: _delta(path, config, name.removesuffix(".weight"), factors[name])
        for canonical, name in canonical_names(factors, str(path)).items()
    }
    replaced = {canonical: whole[name] for canonical, name in canonical_names(whole, str(path)).items()}
    copies = {name: replaced.pop(name) for name in sorted(deltas.keys() & replaced.keys())}
    return AdapterFolder(path, config, deltas, replaced, copies)


def _check_config(path: Path, config: dict[str, Any]) -> None:
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        raise ModelError(f"{path} is a {config['peft_type']} adapter; only LORA is read; merge it into a model first")
    for key in _NEVER_MERGED:
        if config.get(key):
            raise ModelError(f"{path} has {key}; such an adapter cannot be merged into weights; leave it out")
    for key in _NOT_PLAIN:
        if config.get(key):
            raise ModelError(f"{path} has {key}; only plain LoRA is read; merge it into a model first")
    if config.get("init_lora_weights") not in _BASE_KEPT and _start(config) is None:
        raise ModelError(
            f"{path} has init_lora_weights {config['init_lora_weights']!r}, which changed the base in a way that it "
            "does not tell; an adapter must be a change of the base as it is; save it with peft's "
            "path_initial_model_for_weight_conversion, or merge it into the base that it was trained on"
        )
    if not (path / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"{path} has no {ADAPTER_WEIGHTS}; an adapter folder needs it; save it as safetensors")


def _start(config: dict[str, Any]) -> Initialisation | None:
    """PiSSA by its exact decomposition, or OLoRA. The randomised `pissa_niter_N` cannot be derived again."""
    value = config.get("init_lora_weights")
    if value == "pissa":
        return "pissa"
    return "olora" if str(value).lower() == "olora" else None


def _delta(path: Path, config: dict[str, Any], module: str, sides: dict[str, TensorRef]) -> LowRankRef:
    transposed = "embedding_A" in sides
    prefix = "embedding_" if transposed else ""
    if sides.keys() != {prefix + "A", prefix + "B"}:
        only = " and ".join(f"lora_{side}" for side in sorted(sides))
        raise ModelError(f"{path}: {module} has only {only}; both factors are needed; fetch it again")
    left, right = sides[prefix + "B"], sides[prefix + "A"]
    fits = len(left.shape) == len(right.shape) == 2 and left.shape[1] == right.shape[0]
    if not fits or left.dtype not in MERGEABLE or right.dtype not in MERGEABLE:
        raise ModelError(
            f"{path}: {module} has factors B {left.dtype} {list(left.shape)} and A {right.dtype} {list(right.shape)}; "
            "they must be floating [out, r] and [r, in]; merge the adapter into a model first"
        )
    rank = right.shape[0]
    if rank == 0:
        raise ModelError(f"{path}: {module} has rank 0; a factor needs at least one row; fetch it again")
    start = None if transposed else _start(config)  # peft starts an embedding's factors at zero in any case
    return LowRankRef(left, right, _scaling(path, config, module, rank), transposed, start)


def _scaling(path: Path, config: dict[str, Any], module: str, rank: int) -> float:
    """s of one module, whose rank must be the one that the config says, or s would be another."""
    configured = _by_pattern(path, config, "rank_pattern", module, config.get("r", rank))
    if configured != rank:
        raise ModelError(
            f"{path}: {module} has rank {rank} where {ADAPTER_CONFIG} says {configured:g}; the scaling depends on it; "
            "fetch both files again"
        )
    alpha = _by_pattern(path, config, "alpha_pattern", module, config.get("lora_alpha", _PEFT_ALPHA))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(path: Path, config: dict[str, Any], patterns: str, module: str, default: Any) -> float:
    """peft's rule: the first key that as a regular expression matches the module's name, or its end from a dot on.

    The name is the one inside the model, without what peft wraps around it: `^model.layers.0` names a first layer.
    """
    inner = module.removeprefix(_WRAPPER)
    try:
        for key, value in (config.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({key})$", inner):
                return float(value)
        return float(default)
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise ModelError(
            f"{path / ADAPTER_CONFIG} has {patterns} {config.get(patterns)!r} and default {default!r}; ranks and "
            f"alphas are numbers, by regular expressions ({error}); fetch it again"
        ) from error
