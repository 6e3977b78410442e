"""The worked examples in the docstrings."""

import doctest
from types import ModuleType

import pytest

from tinyr1v_ray.algorithms import policy_loss
from tinyr1v_ray.checkpoint import manifest
from tinyr1v_ray.learner import schedule, weight_files


@pytest.mark.parametrize("module", [policy_loss, manifest, schedule, weight_files])
def test_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
