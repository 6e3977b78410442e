"""The settings of the algorithms. What they mean in full is in the algorithm's own file, `tinyr1v_ray/algorithms/`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tinyr1v_ray.config.base import Settings


class LipoConfig(Settings):
    """Length-Informed Relative Policy Optimization. [C] certain from the paper, [R] our reading."""

    pairs: Literal["adjacent", "all"] = "adjacent"
    """Which completions are compared: neighbours in the order of (length, index) [C], or every pair [R]."""
    reward_gap: NonNegativeFloat = 0.1
    """xi: a pair qualifies when its rewards differ by less [C in words; the value R]."""
    min_quality: NonNegativeFloat = 0.5
    """Only a completion of at least this reward is boosted; 0 switches the guard off [R]."""
    boost: NonNegativeFloat = 0.2
    """Largest relative gain of the shorter completion's reward [R]."""
    decay: Literal["cosine", "linear", "exponential"] = "cosine"
    """How the boost decays towards the length bound [C that it does; the form R]."""
    length_bound: PositiveFloat = 512
    """U, tokens [R]."""
    length_scale: PositiveFloat = 1.0
    """kappa: width of the two-sided exponential weight around the optimal length [R]."""
    advantage_mode: Literal["both", "statistics", "multiply"] = "both"
    """Where the length weights enter: group statistics, a factor, or both [R]."""
    std_floor: NonNegativeFloat = 0.1
    """Smallest denominator; keeps a length-only difference below a right/wrong one; 0 switches it off [R]."""


class DapoConfig(Settings):
    """DAPO (arXiv 2503.14476): overlong reward shaping and dynamic sampling."""

    overlong_buffer: PositiveInt = 512
    """Tokens before `rollout.max_tokens` over which the penalty grows linearly."""
    overlong_penalty: NonNegativeFloat = 1.0
    """Penalty at `rollout.max_tokens`."""
    dynamic_sampling: bool = True
    """Replace groups without signal by fresh ones."""
    max_replaced_share: PositiveFloat = 8.0
    """Groups replaced in one step, as a multiple of the step's groups, before the run stops."""


class QualityFirstConfig(Settings):
    """Quality first: length is compared among good answers alone, with a weight beta that is controlled."""

    min_quality: NonNegativeFloat = 0.5
    """Smallest reward of a good answer."""
    controller: Literal["pass_rate", "ramp", "fixed"] = "pass_rate"
    """How beta moves: up while the pass rate holds and down else, up alone, or not at all."""
    beta: NonNegativeFloat = 1.0
    """Largest weight of the length term; with `fixed` the weight itself; 0 is GRPO."""
    rate: NonNegativeFloat = 0.05
    """What beta rises by in a step; it falls by twice as much."""
    tolerance: NonNegativeFloat = 0.03
    """How far the running mean of the pass rate may lie below its best."""
    window: PositiveInt = 20
    """Steps that the running mean of the pass rate looks back over."""


class DdcaConfig(Settings):
    """DDCA (arXiv 2602.02099): a length term among right answers, scaled by the pass rate."""

    beta: NonNegativeFloat = 0.2
    """Weight of the length term (the authors' recommendation)."""


class LengthPenaltyConfig(Settings):
    """Group-relative length penalty (arXiv 2502.04463)."""

    alpha: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Largest share of a right answer's reward that its length takes."""


class DlerConfig(Settings):
    """Truncation alone with batch-wise normalisation, as in DLER (arXiv 2510.15110)."""

    length_limit: PositiveInt = 512
    """An answer of more tokens, or one that fills `rollout.max_tokens`, has reward 0."""


OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "dr_grpo": {"loss_average": "constant", "kl_coefficient": 0.0},
    "dapo": {"kl_coefficient": 0.0},
    "dler": {"clip_high": 0.28, "kl_coefficient": 0.0005},
}
"""What a method's paper fixes otherwise than the defaults: Dr. GRPO (arXiv 2503.20783), DAPO (arXiv 2503.14476), DLER
(arXiv 2510.15110; the coefficient is in the authors' script)."""

AlgorithmName = Literal[
    "lipo", "grpo", "dr_grpo", "dapo", "quality_first", "ddca", "length_penalty", "dler", "function"
]


class AlgorithmSettings(Settings):
    """Advantages and the policy loss. `name` brings the defaults of OWN_DEFAULTS; a given value replaces them."""

    name: AlgorithmName = "lipo"
    """How rewards and lengths become advantages; `function` is a custom one."""
    function: str = ""
    """`package.module:function` of a custom advantage; it makes the name `function`."""
    lipo: LipoConfig = LipoConfig()
    dapo: DapoConfig = DapoConfig()
    quality_first: QualityFirstConfig = QualityFirstConfig()
    ddca: DdcaConfig = DdcaConfig()
    length_penalty: LengthPenaltyConfig = LengthPenaltyConfig()
    dler: DlerConfig = DlerConfig()
    clip_low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Lower clip range of the ratio (arXiv 1707.06347, eq. 7)."""
    clip_high: PositiveFloat = 0.3
    """Upper clip range (asymmetric, arXiv 2503.14476)."""
    kl_coefficient: NonNegativeFloat = 0.01
    """Weight of the k3 KL to the frozen base; 0 switches the reference model off."""
    importance_cap: NonNegativeFloat = 2.0
    """Cap of the truncated importance weight pi_learner/pi_rollout; 0 switches the correction off."""
    loss_average: Literal["token", "sequence", "constant"] = "token"
    """Denominator: the step's tokens, each row's own tokens then rows, or rows times `rollout.max_tokens`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_own_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        named = {"name": "function", **given} if given.get("function") else given
        return {**OWN_DEFAULTS.get(str(named.get("name")), {}), **named}

    @model_validator(mode="after")
    def _name_and_function_agree(self) -> Self:
        if bool(self.function) != (self.name == "function"):
            raise ValueError(
                f"function is {self.function!r} with name {self.name}; name function and a function "
                "(package.module:function) go together; set function alone or none"
            )
        return self
