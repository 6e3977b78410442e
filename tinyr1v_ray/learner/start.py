"""Which learner is started: the one place that names an implementation."""

from __future__ import annotations

from pathlib import Path

from tinyr1v_ray.config.learner import LearnerSettings
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.learner.rank import LearnerRank, Membership, Objective


def start_learner(
    settings: LearnerSettings, model: ModelSettings, objective: Objective, model_folder: Path, membership: Membership
) -> LearnerRank:
    """A rank in the process that calls this, which joins the others; heavy imports happen there."""
    from tinyr1v_ray.learner.learner import DeepSpeedLearner

    return DeepSpeedLearner(settings, model, objective, model_folder, membership)
