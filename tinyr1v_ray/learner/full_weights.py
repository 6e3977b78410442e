"""Whole float32 weights out of whatever DeepSpeed made of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from deepspeed.runtime.zero import GatheredParameters
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn

from tinyr1v_ray.learner.weight_files import published_parameters


class FullWeights:
    """Float32 tensors of a model under their published names, the same under every ZeRO stage and arithmetic.

    Made before DeepSpeed takes the model over: it keeps the shapes, and the exact float32 values of frozen parameters
    where bfloat16 arithmetic will round the model's own copy.
    """

    def __init__(self, model: nn.Module, zero_stage: int, dtype: torch.dtype) -> None:
        self._model = model
        self._is_partitioned = zero_stage == 3
        self._has_masters = dtype != torch.float32
        parameters = dict(published_parameters(model))
        self.shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        self._frozen = {
            name: parameter.detach().clone()
            for name, parameter in parameters.items()
            if self._has_masters and not parameter.requires_grad
        }

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Each parameter once. Under ZeRO 3 they are gathered one at a time, so all ranks must iterate to the end.

        A tensor may share memory with the weights: it is valid until the next one is asked for.
        """
        for name, parameter in published_parameters(self._model):
            if name in self._frozen:
                yield name, self._frozen[name]
            elif self._has_masters:
                yield name, safe_get_full_fp32_param(parameter)
            elif self._is_partitioned:
                with GatheredParameters([parameter]):
                    yield name, parameter.detach()
            else:
                yield name, parameter.detach()
