"""Small groups with known metrics."""

from types import SimpleNamespace

import numpy as np
import pytest

from tinyr1v_ray.types import Completion, Finish, ImageRef, LearnerUpdate, Prompt, RolloutGroup, Score, ScoredGroup


def make_completion(num_tokens, text="", finish=Finish.STOP, version=0):
    return Completion(
        np.arange(num_tokens, dtype=np.int32), np.zeros(num_tokens, np.float32), text, finish, version, version
    )


def make_group(prompt_id, completions, scores, images=()):
    prompt = Prompt(prompt_id, "ocr", "Read <b>this</b>.", "407", (5, 6), tuple(images), difficulty="3", epoch=1)
    return ScoredGroup(RolloutGroup(prompt, tuple(completions)), tuple(scores))


def make_step(step, num_groups=2, images=()):
    """A step's groups, advantages and update; one group has a signal, the others have none."""
    groups, advantages_PG = [], []
    for index in range(num_groups):
        completions = [make_completion(4, "4 < 5", version=step - 1), make_completion(6, "no", version=step - 1)]
        second = Score(0.0 if index == 0 else 1.0, {"answer": 0.0}, correct=index > 0)
        groups.append(make_group(f"p{step}-{index}", completions, [Score(1.0, {"answer": 1.0}, True), second], images))
        advantages_PG.append(np.array([0.5, -0.5]) if index == 0 else np.zeros(2))
    return groups, advantages_PG, LearnerUpdate(step, {"kl": 0.01, "grad_norm": 0.7})


@pytest.fixture
def make():
    return SimpleNamespace(completion=make_completion, group=make_group, step=make_step, image=ImageRef)
