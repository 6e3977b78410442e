"""Weights as files: published names, and safetensors written one tensor at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tinyr1v_ray.errors import CheckpointError
from tinyr1v_ray.files.safetensors_file import header_bytes
from tinyr1v_ray.models.family import ModelFamily


def published_parameters(model: nn.Module, family: ModelFamily) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter once (a tied head under its embedding's name), in the module's order."""
    for name, parameter in model.named_parameters():
        yield family.published_name(name), parameter


def write_safetensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str],
) -> None:
    """Write float32 tensors as one safetensors file, which appears under its name only when it is whole.

    Since all are float32 and their shapes are known, the header goes first and each tensor is written as it comes: no
    second copy of the model is made. `tensors` come in the order of `shapes`. Raises CheckpointError when it cannot be
    written.
    """
    entries = [(name, "F32", shape, 4 * math.prod(shape)) for name, shape in shapes.items()]
    num_bytes = sum(nbytes for *_, nbytes in entries)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(header_bytes(entries, metadata))
            for (name, tensor), expected in zip(tensors, shapes, strict=True):
                if name != expected or tuple(tensor.shape) != shapes[name]:
                    raise ValueError(f"tensor {name} {tuple(tensor.shape)} where {expected} {shapes[expected]} is due")
                values = tensor.detach().to("cpu", torch.float32).contiguous()
                file.write(values.reshape(-1).view(torch.uint8).numpy().data)
        partial.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"weights cannot be written to {path}: {error.strerror}; {num_bytes} bytes are needed; free the disk"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
