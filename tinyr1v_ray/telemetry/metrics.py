"""From a finished step to its row of metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tinyr1v_ray.telemetry.timing import WHOLE_STEP
from tinyr1v_ray.types import Finish, LearnerUpdate, ScoredGroup, StepAdvantages, StepMetrics


def step_metrics(
    step: int,
    update: LearnerUpdate,
    groups: Sequence[ScoredGroup],
    advantages: StepAdvantages,
    num_rejected: int,
    seconds: Mapping[str, float],
) -> StepMetrics:
    """The step's metrics beside the learner's own; `seconds` is a lap of the phase clock.

    Means of rewards, their parts, lengths and accuracy are over usable completions (finished, scored, not empty) and
    NaN when there are none. `truncated_share` is of all completions, `no_signal_share` the share of groups whose
    advantages are all zero, `equal_reward_share` that of groups whose usable rewards are all the same; for the other
    metrics of advantages see `_advantage_metrics`, for the histogram of pass rates `_pass_rates`. An algorithm's state,
    such as a controlled beta, is among the metrics. `staleness_max` is how many versions the weights had moved on, when
    the step was trained, since the oldest token was sampled: update v trains the weights of version v - 1.
    `tokens_per_second` are all completion tokens over the step's wall seconds.

    Raises ValueError when a name of the learner's is also one of these.
    """
    finishes = [completion.finish for group in groups for completion in group.group.completions]
    versions = [completion.first_version for group in groups for completion in group.group.completions]
    wall_s = seconds.get(WHOLE_STEP, 0.0)
    num_tokens = sum(int(group.lengths_G.sum()) for group in groups)
    own = {
        **_means(groups),
        **_advantage_metrics(groups, advantages),
        **_pass_rates(groups),
        **advantages.state,
        "truncated_share": _mean([finish == Finish.LENGTH for finish in finishes]),
        "no_signal_share": _mean([not np.any(advantages_G) for advantages_G in advantages.by_group_PG]),
        "equal_reward_share": _mean([len(set(group.rewards_G[group.usable_G])) < 2 for group in groups]),
        "num_rejected_groups": float(num_rejected),
        "num_completions": float(len(finishes)),
        "num_aborted": float(sum(finish == Finish.ABORT for finish in finishes)),
        "num_unscored": float(sum(not score.is_scored for group in groups for score in group.scores)),
        "staleness_max": float(update.version - 1 - min(versions)) if versions else math.nan,
        "tokens_per_second": num_tokens / wall_s if wall_s > 0 else math.nan,
    }
    if shared := sorted(own.keys() & update.metrics.keys()):
        raise ValueError(f"the learner's metrics {shared} have names of the step's own; rename them")
    return StepMetrics(step, update.version, {**own, **update.metrics}, dict(seconds))


def _means(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Means over usable completions; a part of the reward is averaged over the completions that have it."""
    usable = [
        (completion, score)
        for group in groups
        for completion, score, ok in zip(group.group.completions, group.scores, group.usable_G, strict=True)
        if ok
    ]
    parts = sorted({name for _, score in usable for name in score.parts})
    return {
        "reward_mean": _mean([score.total for _, score in usable]),
        "accuracy": _mean([score.correct for _, score in usable]),
        "length_mean": _mean([completion.num_tokens for completion, _ in usable]),
        **{
            f"reward_part_{name}": _mean([score.parts[name] for _, score in usable if name in score.parts])
            for name in parts
        },
    }


def _advantage_metrics(groups: Sequence[ScoredGroup], advantages: StepAdvantages) -> dict[str, float]:
    """Whether advantages reward what is right, and how much of them is due to length alone.

    Of the right answers the share with a negative advantage, of the wrong ones that with a positive one, NaN when there
    are none; the sum of |A| over the step, and that of |A - A'| with A' the advantages if all answers of a group were
    equally long.
    """
    pairs = list(zip(groups, advantages.by_group_PG, strict=True))
    right = [float(a) for group, a_G in pairs for a in a_G[group.usable_G & group.correct_G]]
    wrong = [float(a) for group, a_G in pairs for a in a_G[group.usable_G & ~group.correct_G]]
    by_length = zip(advantages.by_group_PG, advantages.if_equally_long_PG, strict=True)
    return {
        "right_negative_share": _mean([advantage < 0 for advantage in right]),
        "wrong_positive_share": _mean([advantage > 0 for advantage in wrong]),
        "advantage_sum": math.fsum(map(abs, right + wrong)),
        "advantage_sum_by_length": math.fsum(float(np.abs(a_G - alike_G).sum()) for a_G, alike_G in by_length),
    }


def _pass_rates(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    """Histogram of the groups' pass rates (share of right answers among the usable ones), as shares of the groups.

    The bins: none right, up to a quarter, up to half, up to three quarters, below all, all right. Groups without a
    usable completion are left out.
    """
    rates = [float(group.correct_G[group.usable_G].mean()) for group in groups if group.usable_G.any()]
    bins = np.digitize(rates, (0.0, 0.25, 0.5, 0.75, np.nextafter(1.0, 0.0)), right=True)
    names = ("0", "0_25", "25_50", "50_75", "75_100", "100")
    return {f"pass_rate_{name}": _mean((bins == number).tolist()) for number, name in enumerate(names)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
