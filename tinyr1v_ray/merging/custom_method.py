"""A custom merge method, called on one matrix and checked.

It is any function of K task vectors [out, in], float32, in the order of the experts, with zeros for an expert that
leaves the matrix alone. It gets copies, so it may work in place. What it returns becomes a model's weights, so it is
held to shape and finiteness; and since a merge can be repeated and continued, to returning the same every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from tinyr1v_ray.config.custom_function import function_sha256, load_function, told
from tinyr1v_ray.config.merge import MethodConfig
from tinyr1v_ray.errors import MergeError, MergeInputError
from tinyr1v_ray.merging.task_vectors import TaskVector, Vectors, dense

FUNCTION = "function"
"""The method's name, and its rule's."""
SETTING = "method.function"


def function_hashes(methods: Iterable[MethodConfig]) -> dict[str, str]:
    """Every custom function of the methods -> SHA-256 of its source; raises ConfigError for what cannot be imported."""
    return {method.function: function_sha256(SETTING, method.function) for method in methods if method.function}


def require_same_function(path: str, sha256: str) -> None:
    """Raise MergeError where this process finds another function under the name than the plan was made with."""
    if function_sha256(SETTING, path) != sha256:
        raise MergeError(
            f"{SETTING} {path} has another source here than where the merge was planned; a merge has one method; "
            "make it the same on all nodes and start the merge again"
        )


def merge_by_function(vectors_K: Sequence[Tensor] | Vectors, path: str, name: str = "") -> Tensor:
    """What the function returns, as a float32 tensor of its own; `name` is the matrix's, for messages.

    Raises MergeInputError for anything else than a finite tensor of the task vectors' shape, MergeError for what the
    function raises: that may be want of memory, and a merge goes on behind it.
    """
    function = load_function(SETTING, path)
    given = [dense(vector).float().clone() for vector in vectors_K]
    shape, where = tuple(given[0].shape), f"{SETTING} {path} on {name or 'a matrix'}"
    try:
        merged = function(given)
    except (Exception, SystemExit) as error:  # supervision: a user's function may raise anything
        raise MergeError(
            f"{where} raised {told(error)}; it merges {len(vectors_K)} task vectors; start the merge again, "
            "or correct it and add --no-resume"
        ) from error
    if not isinstance(merged, Tensor) or tuple(merged.shape) != shape:
        seen = f"a tensor {list(merged.shape)}" if isinstance(merged, Tensor) else f"a {type(merged).__name__}"
        raise MergeInputError(
            f"{where} returned {seen}; the merged task vector is a tensor of the shape of each, {list(shape)}; "
            "correct it"
        )
    if merged.is_complex() or not bool(torch.isfinite(merged).all()):
        raise MergeInputError(f"{where} returned numbers that are not finite and real; weights must be; correct it")
    return merged.detach().to(torch.float32, copy=True)


def of_every_expert(vectors: Vectors, present: Sequence[int], num_experts: int) -> list[TaskVector]:
    """Task vectors by expert, zeros where one is not `present`."""
    by_number = dict(zip(present, vectors, strict=True))
    zero = torch.zeros(vectors[0].shape, device=vectors[0].device)
    return [by_number.get(index, zero) for index in range(num_experts)]
