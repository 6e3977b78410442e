"""A whole evaluation, of the settings of its components."""

from __future__ import annotations

from typing import Self

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from tinyr1v_ray.config.base import Settings
from tinyr1v_ray.config.benchmark import JudgeSettings, UserBenchmarkSettings
from tinyr1v_ray.config.cluster import ClusterSettings
from tinyr1v_ray.config.engine import EvaluationEngines
from tinyr1v_ray.config.folders import Folder
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.config.sampling import SamplingSettings


class EvaluateConfig(Settings):
    """One evaluation of one model on one or more benchmarks."""

    model: ModelSettings = ModelSettings()
    benchmarks: tuple[str, ...] = ()
    """Names of the ten benchmarks (`ten` for all), of `user`, or `miniature:DOMAIN`."""
    data: Folder = "."
    """Folder with the TSV files."""
    output: Folder = ""
    """Folder of the answers and scores; empty: one in runs/ named after the model."""
    num_items: NonNegativeInt = 0
    """Items of each benchmark, evenly spaced, groups that are scored together kept whole; 0: all."""
    system_prompt: str = ""
    """System turn; empty: the chat template's own default."""
    question_template: str = "{question}"
    """How a question is put to the model; holds {question} once."""
    max_image_megapixels: PositiveFloat = 64.0
    """Images with more pixels than this are not decoded (decompression bombs)."""
    user: dict[str, UserBenchmarkSettings] = Field(default_factory=dict)
    """Custom benchmarks, by name."""
    sampling: SamplingSettings = SamplingSettings()
    engine: EvaluationEngines = EvaluationEngines()
    judge: JudgeSettings = JudgeSettings()
    cluster: ClusterSettings = ClusterSettings()
    progress: bool = True
    """Show live progress."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.question_template.count("{question}") != 1:
            raise ValueError(
                f"question_template {self.question_template!r} must hold {{question}} once; add the placeholder"
            )
        if self.sampling.max_tokens >= self.model.max_length:
            raise ValueError(
                f"sampling.max_tokens {self.sampling.max_tokens} leaves no room for a prompt in model.max_length "
                f"{self.model.max_length}; it must be smaller; lower it"
            )
        if not self.benchmarks:
            raise ValueError("benchmarks is empty; an evaluation names at least one; set benchmarks (--benchmarks)")
        for name in self.user:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"user has the name {name!r}; it becomes a folder; use letters, digits, - and _")
        return self
