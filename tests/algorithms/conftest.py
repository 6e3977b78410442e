"""Scored groups from plain numbers."""

import numpy as np
import pytest

from tinyr1v_ray.types import Completion, Finish, Prompt, RolloutGroup, Score, ScoredGroup


def make_group(rewards_G, lengths_G, correct_G=None, prompt_id="p", finish_G=None, failures_G=None):
    """A group; an answer is right where its reward is 1 unless `correct_G` says otherwise."""
    size = len(rewards_G)
    correct_G = [reward == 1 for reward in rewards_G] if correct_G is None else correct_G
    finish_G, failures_G = finish_G or [Finish.STOP] * size, failures_G or [""] * size
    completions = tuple(
        Completion(np.zeros(length, np.int32), np.zeros(length, np.float32), "", finish, 0, 0)
        for length, finish in zip(lengths_G, finish_G, strict=True)
    )
    scores = tuple(
        Score(float(reward), correct=bool(correct), failure=failure)
        for reward, correct, failure in zip(rewards_G, correct_G, failures_G, strict=True)
    )
    return ScoredGroup(RolloutGroup(Prompt(prompt_id, "math", "?", "1", (1,)), completions), scores)


@pytest.fixture
def group():
    return make_group
