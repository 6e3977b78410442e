"""A custom advantage: called on one group at a time, and held to shape and finiteness.

What it returns is trained on, so whatever else it does ends the run, with its name and the group's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyr1v_ray.algorithms.group import StepFacts, UsableGroup
from tinyr1v_ray.config.custom_function import load_function, told
from tinyr1v_ray.errors import AdvantageError

_SETTING = "algorithm.function"


def custom_advantage(path: str) -> Callable[[UsableGroup, StepFacts], np.ndarray]:
    """The function at `package.module:function`, checked in every call.

    Raises ConfigError when it cannot be imported. Calls raise AdvantageError for anything else than a finite vector of
    the group's size, and for what the function raises.
    """
    function = load_function(_SETTING, path)

    def of_group(group: UsableGroup, facts: StepFacts) -> np.ndarray:
        size = group.rewards_G.size
        where = f"{_SETTING} {path} on the group of prompt {group.prompt_id}"
        try:
            returned = function(group, facts)
        except (Exception, SystemExit) as error:  # supervision: a user's function may raise anything
            raise AdvantageError(
                f"{where} raised {told(error)}; it takes every group of scored completions; correct it and resume"
            ) from error
        advantages_G = _as_numbers(returned)
        if advantages_G is None or advantages_G.shape != (size,):
            seen = f"a {type(returned).__name__}" if advantages_G is None else f"shape {list(advantages_G.shape)}"
            raise AdvantageError(
                f"{where} returned {seen}; an advantage is one number per completion, shape [{size}]; "
                "correct it and resume"
            )
        if not np.isfinite(advantages_G).all():
            raise AdvantageError(
                f"{where} returned {advantages_G.tolist()}; an advantage is finite; correct it and resume"
            )
        return advantages_G

    return of_group


def _as_numbers(returned: object) -> np.ndarray | None:
    """float64 array of what was returned; None for what is no array of real numbers."""
    try:
        values = np.asarray(returned)
    except ValueError:  # rows of several lengths
        return None
    return values.astype(np.float64) if values.dtype.kind in "biuf" else None
