"""Custom merge methods, tried before anything is written."""

from __future__ import annotations

import torch

from tinyr1v_ray.errors import MergeError
from tinyr1v_ray.merging.custom_method import FUNCTION, SETTING, merge_by_function, of_every_expert
from tinyr1v_ray.merging.plan import MergePlan, TensorTask
from tinyr1v_ray.merging.sources import TensorSource


def try_functions(plan: MergePlan) -> None:
    """Call every custom method twice on the smallest matrix that it will merge; raises MergeError (see the module).

    Where there is one, a matrix that is not square, which tells a transposed result.
    """
    for name, method in plan.methods.items():
        tasks = [task for task in plan.tasks if method.function and _is_merged_by_it(task, name)]
        if not tasks:
            continue
        task = min(tasks, key=lambda each: (len(set(each.shape)) == 1, each.base.numel))
        with TensorSource(task) as source:
            source.hold()
            vectors_K = of_every_expert(*source.vectors("cpu"), len(task.experts))
        first, second = (merge_by_function(vectors_K, method.function, task.name) for _ in range(2))
        if not torch.equal(first, second):
            raise MergeError(
                f"{SETTING} {method.function} on {task.name} returned other numbers when it was called again; a "
                "merge must come out the same every time; seed a generator of its own in every call"
            )


def _is_merged_by_it(task: TensorTask, method: str) -> bool:
    return any(treatment.method == method and treatment.rule == FUNCTION for treatment in task.treatments)
