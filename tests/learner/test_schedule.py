"""The learning rate by hand."""

import pytest

from tinyr1v_ray.config.learner import LearnerSettings
from tinyr1v_ray.learner.schedule import learning_rate


def rates(num_steps: int, **changes: object) -> list[float]:
    settings = LearnerSettings.model_validate({"learning_rate": 1.0, **changes})
    return [learning_rate(step, num_steps, settings) for step in range(num_steps)]


def test_constant_and_warm_up() -> None:
    assert rates(3) == [1.0, 1.0, 1.0]
    assert rates(4, num_warmup_steps=4) == [0.25, 0.5, 0.75, 1.0]


def test_linear_and_cosine_reach_zero_one_step_after_the_last() -> None:
    assert rates(4, schedule="linear") == [1.0, 0.75, 0.5, 0.25]
    assert rates(4, schedule="cosine") == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)
    settings = LearnerSettings(learning_rate=1.0, schedule="cosine")
    assert learning_rate(4, 4, settings) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(9, 4, settings) == pytest.approx(0.0, abs=1e-12)


def test_a_warm_up_as_long_as_the_run_never_decays() -> None:
    assert rates(2, num_warmup_steps=5, schedule="linear") == [0.2, 0.4]
