"""Whole float32 weights out of whatever DeepSpeed made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from deepspeed.runtime.zero import GatheredParameters
from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param, safe_set_local_fp32_param
from torch import Tensor, nn
from torch.nn import functional

from tinyr1v_ray.learner.weight_files import published_parameters, write_safetensors
from tinyr1v_ray.models.family import ModelFamily


class FullWeights:
    """Float32 tensors of a model under their published names, the same under every ZeRO stage and arithmetic.

    Made before DeepSpeed takes the model over: for bfloat16 arithmetic DeepSpeed rounds the model first and makes its
    float32 masters of the rounded values. The exact ones are kept here: those of frozen parameters for good, those of
    trained ones until `restore_masters`. `at` says what an iteration is doing, and to which tensor.
    """

    def __init__(
        self, model: nn.Module, family: ModelFamily, zero_stage: int, dtype: torch.dtype, is_first: bool
    ) -> None:
        self._model, self._family, self.is_first = model, family, is_first
        self.at = "before the first tensor"
        self._is_partitioned = zero_stage == 3
        self._has_masters = dtype != torch.float32
        parameters = dict(published_parameters(model, family))
        self.shapes: dict[str, tuple[int, ...]] = {
            name: tuple(parameter.shape) for name, parameter in parameters.items()
        }
        self.trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
        self._exact = {name: parameter.detach().clone() for name, parameter in parameters.items() if self._has_masters}

    def restore_masters(self) -> None:
        """Give DeepSpeed's float32 masters the exact values that the model was loaded with; once, after its start."""
        for name, parameter in published_parameters(self._model, self._family):
            if name in self._exact and name in self.trained:
                _set_master(parameter, self._exact.pop(name))

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Each parameter once, in the module's order, which all ranks share, on the device that computes.

        Under ZeRO 3 they are gathered one at a time, so all ranks must iterate to the end. A gather is finished before
        its tensor is handed on: else what the first rank does with it, such as a broadcast to engines, and the next
        gather could wait for each other on GPUs that have begun them in different orders.
        A tensor may share memory with the weights: it is valid until the next one is asked for.
        """
        for name, parameter in published_parameters(self._model, self._family):
            self.at = f"gathering {name}"
            with self._whole(name, parameter) as tensor:
                if torch.accelerator.is_available():
                    torch.accelerator.synchronize()
                self.at = f"handing on {name}"
                yield name, tensor

    @contextmanager
    def _whole(self, name: str, parameter: nn.Parameter) -> Iterator[Tensor]:
        if name in self._exact:
            yield self._exact[name].to(parameter.device)
        elif self._has_masters:
            yield safe_get_full_fp32_param(parameter)
        else:
            with GatheredParameters([parameter]) if self._is_partitioned else nullcontext():
                yield parameter.detach()

    def write(self, path: Path, metadata: Mapping[str, str]) -> None:
        """The first rank writes them as one safetensors file, whole at once; all ranks take part."""
        if self.is_first:
            write_safetensors(path, self.shapes, self, metadata)
            return
        for _ in self:
            pass


def _set_master(parameter: nn.Parameter, value: Tensor) -> None:
    """Give this rank's part of a float32 master its values out of the whole ones.

    Under ZeRO 3 the parts of all ranks are of one size, so the last ones may be padded (DeepSpeed's own setter of whole
    values reads past their end).
    """
    if not hasattr(parameter, "ds_id"):
        safe_set_full_fp32_param(parameter, value)
        return
    size = parameter.partition_numel()
    start = size * dist.get_rank()
    part = value.flatten()[start : start + size]
    safe_set_local_fp32_param(parameter, functional.pad(part, (0, size - len(part))))
