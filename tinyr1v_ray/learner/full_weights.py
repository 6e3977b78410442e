"""Whole float32 weights out of whatever DeepSpeed made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from deepspeed.runtime.zero import GatheredParameters
from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param
from torch import Tensor, nn

from tinyr1v_ray.learner.weight_files import published_parameters, write_safetensors
from tinyr1v_ray.models.family import ModelFamily


class FullWeights:
    """Float32 tensors of a model under their published names, the same under every ZeRO stage and arithmetic.

    Made before DeepSpeed takes the model over: for bfloat16 arithmetic DeepSpeed rounds the model first and makes its
    float32 masters of the rounded values. The exact ones are kept here: those of frozen parameters for good, those of
    trained ones until `restore_masters`.
    """

    def __init__(
        self, model: nn.Module, family: ModelFamily, zero_stage: int, dtype: torch.dtype, is_first: bool
    ) -> None:
        self._model, self._family, self.is_first = model, family, is_first
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
                safe_set_full_fp32_param(parameter, self._exact.pop(name))

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Each parameter once. Under ZeRO 3 they are gathered one at a time, so all ranks must iterate to the end.

        A tensor may share memory with the weights: it is valid until the next one is asked for.
        """
        for name, parameter in published_parameters(self._model, self._family):
            if name in self._exact:
                yield name, self._exact[name]
            elif self._has_masters:
                yield name, safe_get_full_fp32_param(parameter)
            elif self._is_partitioned:
                with GatheredParameters([parameter]):
                    yield name, parameter.detach()
            else:
                yield name, parameter.detach()

    def write(self, path: Path, metadata: Mapping[str, str]) -> None:
        """The first rank writes them as one safetensors file, whole at once; all ranks take part."""
        if self.is_first:
            write_safetensors(path, self.shapes, self, metadata)
            return
        for _ in self:
            pass
