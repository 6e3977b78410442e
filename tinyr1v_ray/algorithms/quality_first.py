"""Quality first: shorter only among good answers, never at the price of a sign, and no harder than the pass rate bears.

This project's own advantage, for one group at a time. With rewards R and lengths L in tokens:

1. Quality. a = GRPO's advantage (R - mean)/(std + 1e-6), zeros where all rewards are equal.
2. Good answers. S = {i: R_i >= `min_quality` and a_i >= 0}, rho = |S|/G. Of graded rewards only those that are not
   below the group's mean count, so that length never speaks for a worse answer.
3. Length. t_i = mean_S(s) - s_i on S and 0 elsewhere, s = sigmoid of the length's z-score within S: it sums to zero.
4. Advantage. A = a + beta rho t; where a_i is not 0 and the sum has the other sign, A_i = 0.

beta = 0 is GRPO, bit for bit. In a group that is all equally good the length term stands alone. On a hard prompt (rho
small) length hardly presses. Comparing lengths among right answers and scaling by the pass rate are DDCA's ideas (arXiv
2602.02099); the rule for graded rewards, the kept sign and the control of beta are ours.

beta is controlled (`controller`). It starts at 0. Let m be the running mean of the pass rate (the mean over a step's
groups of their share of right answers), a plain mean over the first `window` steps and an exponential one after, and m*
its best since the window is full. beta rises by `rate` a step, up to `beta`, while m >= m* - `tolerance`, and falls by
twice the rate, down to 0, otherwise. `ramp` rises alone; `fixed` is `beta` from the first step on. With 16 prompts of 8
answers a step's pass rate varies by about 0.09 from the draw of prompts alone, the mean over 20 steps by 0.014: the
default tolerance is two of these, so that chance hardly lowers beta. Where answers are hardly ever right to the letter
the pass rate stays near 0 and guards nothing: fix beta there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinyr1v_ray.algorithms.baselines import grpo_advantages
from tinyr1v_ray.algorithms.group import StepFacts, checked_group, length_term
from tinyr1v_ray.config.algorithm import QualityFirstConfig


def quality_first_advantages(
    rewards_G: ArrayLike, lengths_G: ArrayLike, beta: float, min_quality: float = 0.5
) -> np.ndarray:
    """A, float64 [G] (steps 1 to 4). Raises DataError on inputs that are not two finite vectors of one size.

    >>> quality_first_advantages([1, 1, 1, 0], [10, 20, 30, 5], beta=1.0).round(3).tolist()
    [0.782, 0.577, 0.373, -1.732]
    """
    rewards_G, lengths_G = checked_group(rewards_G, lengths_G)
    quality_G = grpo_advantages(rewards_G)
    good_G = (rewards_G >= min_quality) & (quality_G >= 0.0)
    share = np.count_nonzero(good_G) / max(good_G.size, 1)
    advantages_G = quality_G + beta * share * length_term(lengths_G, good_G)
    return np.where(np.sign(advantages_G) * np.sign(quality_G) < 0.0, 0.0, advantages_G)


@dataclass(frozen=True)
class Control:
    """beta, and what decides about it: the running mean of the pass rate, its best, and the steps that it has seen."""

    beta: float
    pass_rate_mean: float
    pass_rate_best: float
    num_controlled_steps: int

    def after(self, pass_rate: float, config: QualityFirstConfig) -> Control:
        """The next step's, given that step's pass rate."""
        num_steps = self.num_controlled_steps + 1
        mean = self.pass_rate_mean + (pass_rate - self.pass_rate_mean) / min(num_steps, config.window)
        best = max(self.pass_rate_best, mean) if num_steps > config.window else mean
        beta = self.beta
        if config.controller == "ramp" or (config.controller == "pass_rate" and mean >= best - config.tolerance):
            beta = min(beta + config.rate, config.beta)
        elif config.controller == "pass_rate":
            beta = max(beta - 2.0 * config.rate, 0.0)
        return Control(beta, mean, best, num_steps)


def control_beta(facts: StepFacts) -> dict[str, float]:
    """The step's `Control` as plain numbers, from that of the step before and the pass rates of the step's groups.

    A step without a usable completion leaves it as it is; before the first other step beta is where it starts.
    """
    config = facts.settings.quality_first
    start = config.beta if config.controller == "fixed" else 0.0
    if not facts.groups:
        return dict(facts.state) or {"beta": start}
    pass_rate = float(np.mean([group.correct_G.mean() for group in facts.groups]))
    if "num_controlled_steps" not in facts.state:
        return asdict(Control(start, pass_rate, pass_rate, 1))
    return asdict(Control(**facts.state).after(pass_rate, config))  # type: ignore[arg-type]
