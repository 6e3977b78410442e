"""Batch arithmetic of a training: what a step holds, at most and as expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.models.shape import ModelShape
from tinyr1v_ray.planning.assumptions import (
    MEAN_COMPLETION_SHARE,
    MEAN_COMPLETION_TOKENS,
    MEAN_IMAGE_SHARE,
    MEAN_TEXT_TOKENS,
    MINIATURE_TOKENS,
    PEAK_STEP,
)


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt (its image tokens among them) and of a completion."""

    prompt: float
    image: float
    completion: float

    @property
    def row(self) -> float:
        """Prompt and completion."""
        return self.prompt + self.completion

    def longer(self, factor: float, most: Lengths) -> Lengths:
        """Completions `factor` times as long, within the bounds."""
        return Lengths(self.prompt, self.image, min(self.completion * factor, most.completion))


@dataclass(frozen=True)
class MicroBatches:
    """How a rank cuts its share of a minibatch up."""

    num_groups_per_rank: int
    num_groups_at_once: int
    num_micro_batches: int
    tokens: float
    """Tokens of one micro-batch as the budget counts them: the prompt once per completion."""


@dataclass(frozen=True)
class StepLoad:
    """One step under given lengths. All counts are of the whole run, all ranks and engines together."""

    lengths: Lengths
    num_prompts: int
    num_completions: int
    num_minibatches: int
    micro: MicroBatches

    @property
    def num_rows(self) -> int:
        """Completions of a step."""
        return self.num_prompts * self.num_completions

    @property
    def completion_tokens(self) -> float:
        """Tokens that engines write."""
        return self.num_rows * self.lengths.completion

    @property
    def tokens(self) -> float:
        """Prompt and completion tokens, the prompt once per completion."""
        return self.num_rows * self.lengths.row

    @property
    def shared_tokens(self) -> float:
        """Tokens that the learner computes: each prompt once for its group."""
        return self.num_prompts * self.lengths.prompt + self.completion_tokens

    @property
    def image_tokens(self) -> float:
        """Tokens that come out of the vision tower, each image once."""
        return self.num_prompts * self.lengths.image


@dataclass(frozen=True)
class Workload:
    """The same step three ways: as expected, the run's longest, and the most that the settings allow."""

    expected: StepLoad
    peak: StepLoad
    most: StepLoad
    window_groups: int
    """Groups sampled or waiting at once: (max_staleness + 1) x prompts."""


def build_workload(config: TrainConfig, shape: ModelShape, expect: Mapping[str, float]) -> Workload:
    """`expect` holds what is known better than the assumptions: prompt, image, completion (mean tokens)."""
    most = longest_lengths(config, shape)
    expected = expected_lengths(config, most, expect)
    peak = expected.longer(PEAK_STEP, most)
    return Workload(
        expected=_load(config, expected),
        peak=_load(config, peak),
        most=_load(config, most),
        window_groups=(config.run.max_staleness + 1) * config.run.num_prompts_per_step,
    )


def longest_lengths(config: TrainConfig, shape: ModelShape) -> Lengths:
    """Bounds of the settings: a prompt may fill what the longest completion leaves."""
    prompt = config.model.max_length - config.rollout.max_tokens
    image = min(shape.vision.max_tokens(config.model.max_pixels), prompt) if config.data.image_column else 0
    return Lengths(prompt, image, config.rollout.max_tokens)


def expected_lengths(config: TrainConfig, most: Lengths, expect: Mapping[str, float]) -> Lengths:
    """Means: what was stated, the miniature's own, else the assumptions."""
    domain = next((name.split(":")[1] for name in config.data.train if name.startswith("miniature:")), None)
    own = MINIATURE_TOKENS.get(domain or "")
    image = expect.get("image", own[1] if own else MEAN_IMAGE_SHARE * most.image)
    prompt = expect.get("prompt", own[0] if own else image + MEAN_TEXT_TOKENS)
    completion = expect.get("completion", min(MEAN_COMPLETION_SHARE * most.completion, MEAN_COMPLETION_TOKENS))
    expected = Lengths(min(prompt, most.prompt), min(image, most.image, prompt), completion)
    check_completion(expected.completion, "rollout.max_tokens", most.completion)
    return expected


def check_completion(expected: float, setting: str, most: float) -> None:
    """Raise ConfigError for a mean above the longest completion."""
    if expected > most:
        raise ConfigError(
            f"an expected completion of {expected:g} tokens is longer than {setting} {most:g}; completions end there; "
            "lower --expect completion or raise the setting"
        )


def _load(config: TrainConfig, lengths: Lengths) -> StepLoad:
    num_prompts, num_completions = config.run.num_prompts_per_step, config.rollout.num_completions
    learner = config.learner
    per_minibatch = num_prompts // learner.num_minibatches
    group_tokens = num_completions * lengths.row
    per_rank = math.ceil(per_minibatch / learner.num_ranks)
    at_once = min(max(1, int(learner.micro_batch_tokens // max(group_tokens, 1))), per_rank)
    micro = MicroBatches(per_rank, at_once, math.ceil(per_rank / at_once), at_once * group_tokens)
    return StepLoad(lengths, num_prompts, num_completions, learner.num_minibatches, micro)
