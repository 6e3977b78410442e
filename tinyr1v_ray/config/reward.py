"""The settings of the rewards."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat

from tinyr1v_ray.config.base import ActorCount, Settings, Share


class RewardSettings(Settings):
    """How answers are scored."""

    function: str = ""
    """`package.module:function` of a custom reward; empty: the domain's own."""
    format_weight: Share = 0.1
    """Weight of the format term; the answer term gets the rest."""
    format_weights: dict[str, Share] = Field(default_factory=dict)
    """Format weight of single domains, by name."""
    relative_tolerance: NonNegativeFloat = 0.05
    """Relaxed numeric match of structured data (ChartQA: 5 %)."""
    num_scorers: ActorCount = 1
    """Scorer actors."""
    num_cpus_per_scorer: NonNegativeFloat = 0.1
    """CPU cores reserved for a scorer."""
    item_timeout_s: PositiveFloat = 10.0
    """Hard deadline of one answer; then the scoring process is killed and the answer marked unscored."""
    max_unscored_share: Share = 0.05
    """Largest share of unscored answers in a step before the run stops."""
