"""From the scored groups of a step to their advantages: the table of algorithms, and which groups are taken at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from tinyr1v_ray.algorithms.baselines import dapo_advantages, dr_grpo_advantages, grpo_advantages, is_informative
from tinyr1v_ray.algorithms.custom_advantage import custom_advantage
from tinyr1v_ray.algorithms.ddca import ddca_advantages
from tinyr1v_ray.algorithms.dler import dler_advantages
from tinyr1v_ray.algorithms.group import StepFacts, UsableGroup
from tinyr1v_ray.algorithms.length_penalty import length_penalty_advantages
from tinyr1v_ray.algorithms.lipo import lipo_advantages
from tinyr1v_ray.algorithms.quality_first import control_beta, quality_first_advantages
from tinyr1v_ray.config.algorithm import AlgorithmSettings
from tinyr1v_ray.errors import RolloutError
from tinyr1v_ray.types import ScoredGroup, StepAdvantages

OfGroup = Callable[[UsableGroup, StepFacts], np.ndarray]
"""Advantages, float64 [G], of one of a step's groups."""


def _keep_nothing(facts: StepFacts) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class Algorithm:
    """A row of the table: the advantages of a step, one array a group, as a pure function of the step's facts.

    `control` makes the step's state out of that of the step before (which `facts.state` holds then) and the step's
    groups. It comes first, is logged, and is kept in checkpoints.
    """

    of_step: Callable[[StepFacts], list[np.ndarray]]
    control: Callable[[StepFacts], Mapping[str, float]] = _keep_nothing


def each(of_group: OfGroup) -> Callable[[StepFacts], list[np.ndarray]]:
    """A step's advantages where every group is by itself."""
    return lambda facts: [of_group(group, facts) for group in facts.groups]


def _dapo(group: UsableGroup, facts: StepFacts) -> np.ndarray:
    return dapo_advantages(
        group.rewards_G,
        group.lengths_G,
        max_tokens=facts.max_tokens,
        overlong_buffer=facts.settings.dapo.overlong_buffer,
        overlong_penalty=facts.settings.dapo.overlong_penalty,
    )


def _quality_first(group: UsableGroup, facts: StepFacts) -> np.ndarray:
    beta, min_quality = facts.state["beta"], facts.settings.quality_first.min_quality
    return quality_first_advantages(group.rewards_G, group.lengths_G, beta, min_quality)


def _length_penalty(group: UsableGroup, facts: StepFacts) -> np.ndarray:
    alpha = facts.settings.length_penalty.alpha
    return length_penalty_advantages(group.rewards_G, group.lengths_G, group.correct_G, alpha)


def _dler(facts: StepFacts) -> list[np.ndarray]:
    length_limit = min(facts.settings.dler.length_limit, facts.max_tokens - 1)
    return dler_advantages([(group.rewards_G, group.lengths_G) for group in facts.groups], length_limit)


ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        "lipo": Algorithm(each(lambda g, facts: lipo_advantages(g.rewards_G, g.lengths_G, facts.settings.lipo))),
        "grpo": Algorithm(each(lambda g, facts: grpo_advantages(g.rewards_G))),
        "dr_grpo": Algorithm(each(lambda g, facts: dr_grpo_advantages(g.rewards_G))),
        "dapo": Algorithm(each(_dapo)),
        "quality_first": Algorithm(each(_quality_first), control_beta),
        "ddca": Algorithm(each(lambda g, facts: ddca_advantages(g.correct_G, g.lengths_G, facts.settings.ddca.beta))),
        "length_penalty": Algorithm(each(_length_penalty)),
        "dler": Algorithm(_dler),
    }
)
"""By `algorithm.name`; `function`, the custom one, is not among them."""


def build_advantages(
    settings: AlgorithmSettings, max_tokens: int
) -> Callable[[Sequence[ScoredGroup], Mapping[str, float]], StepAdvantages]:
    """From a step's groups and the state that the step before left (at first none) to the step's advantages.

    Completions are compared among the usable ones of their group alone, and the others have 0: an answer that was
    aborted or could not be scored has no reward, and taking its 0 for one would push the others up. `max_tokens` is
    the longest completion. Raises ConfigError when a custom function cannot be imported.
    """
    algorithm = Algorithm(each(custom_advantage(settings.function))) if settings.function else ALGORITHMS[settings.name]

    def of_step(groups: Sequence[ScoredGroup], state: Mapping[str, float]) -> StepAdvantages:
        usable = [_usable(group) for group in groups]
        facts = StepFacts(tuple(group for group in usable if group.rewards_G.size), settings, max_tokens, state)
        facts = replace(facts, state=algorithm.control(facts))
        alike = replace(facts, groups=tuple(_equally_long(group) for group in facts.groups))
        advantages, if_equally_long = (_at_their_places(algorithm.of_step(of), groups) for of in (facts, alike))
        return StepAdvantages(advantages, if_equally_long, facts.state)

    return of_step


def _usable(group: ScoredGroup) -> UsableGroup:
    prompt, usable_G = group.group.prompt, group.usable_G
    return UsableGroup(
        prompt.prompt_id,
        prompt.domain,
        group.rewards_G[usable_G],
        group.lengths_G[usable_G],
        group.correct_G[usable_G],
    )


def _equally_long(group: UsableGroup) -> UsableGroup:
    """The group as if all its answers were as long as the shortest."""
    return replace(group, lengths_G=np.full_like(group.lengths_G, group.lengths_G.min()))


def _at_their_places(usable_PG: Sequence[np.ndarray], groups: Sequence[ScoredGroup]) -> tuple[np.ndarray, ...]:
    """Advantages [G] of whole groups, 0 for what is not usable, from those of the usable completions."""
    advantages_PG, of_usable = tuple(np.zeros(len(group.scores)) for group in groups), iter(usable_PG)
    for advantages_G, group in zip(advantages_PG, groups, strict=True):
        if (usable_G := group.usable_G).any():
            advantages_G[usable_G] = next(of_usable)
    return advantages_PG


def build_accept(settings: AlgorithmSettings, num_prompts_per_step: int) -> Callable[[ScoredGroup], bool]:
    """Which groups are trained on: all of them, or with DAPO's dynamic sampling those that hold a signal."""
    if settings.name == "dapo" and settings.dapo.dynamic_sampling:
        return DynamicSampling(num_prompts_per_step, settings.dapo.max_replaced_share)
    return lambda group: True


class DynamicSampling:
    """Accepts groups whose usable rewards are not all equal (DAPO, arXiv 2503.14476, eq. 11), in whole steps.

    A group with a completion that could not be scored is accepted too: a broken scorer must be seen, not replaced.

    Called on the groups in the order of training. Raises RolloutError when more than `max_replaced_share` times
    `num_prompts_per_step` groups were turned away within one step, since the run would then sample for ever.
    """

    def __init__(self, num_prompts_per_step: int, max_replaced_share: float) -> None:
        self._num_prompts = num_prompts_per_step
        self._max_replaced = max_replaced_share * num_prompts_per_step
        self._num_accepted = 0
        self._num_replaced = 0

    def __call__(self, group: ScoredGroup) -> bool:
        """Whether the group is trained on."""
        if is_informative(group.rewards_G[group.usable_G]) or not group.usable_G.all():
            self._num_accepted += 1
            if self._num_accepted == self._num_prompts:
                self._num_accepted = self._num_replaced = 0
            return True
        self._num_replaced += 1
        if self._num_replaced > self._max_replaced:
            raise RolloutError(
                f"{self._num_replaced} groups without signal in one step of {self._num_prompts}; dynamic sampling "
                f"replaces at most {self._max_replaced:g} (algorithm.dapo.max_replaced_share); use data of another "
                "difficulty, raise the share or set algorithm.dapo.dynamic_sampling=false"
            )
        return False
