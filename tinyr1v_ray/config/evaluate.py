"""The settings of `tinyr1v evaluate`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tinyr1v_ray.config.base import MAX_SEED, Settings
from tinyr1v_ray.config.folders import Folder
from tinyr1v_ray.config.surroundings import ClusterSettings
from tinyr1v_ray.config.train import ActorCount, ModelSettings


class SamplingSettings(Settings):
    """How answers are drawn."""

    num_samples: PositiveInt = 1
    """Answers to each item (K); above 1 the accuracy is avg@K."""
    temperature: NonNegativeFloat = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling; 1 keeps all tokens."""
    max_tokens: PositiveInt = 2048
    """Longest answer, tokens."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Seed of the draws."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.num_samples > 1 and self.temperature == 0.0:
            raise ValueError(
                f"num_samples is {self.num_samples} at temperature 0; greedy answers are all the same; set "
                "sampling.temperature (--temperature) above 0"
            )
        return self


class EngineSettings(Settings):
    """The vLLM engines."""

    num_engines: ActorCount = 1
    """Engines, each a Ray actor."""
    num_cpus: PositiveFloat = 1.0
    """CPU cores reserved for an engine."""
    num_gpus: NonNegativeFloat = 0.0
    """GPUs of an engine; above 1 it is tensor-parallel over that many."""
    num_threads: NonNegativeInt = 0
    """Threads of an engine on the CPU; 0: one per reserved core."""
    max_num_sequences: PositiveInt = 256
    """Answers written at once by an engine; as many are kept under way."""
    kv_cache_gib: PositiveFloat = 1.0
    """KV cache of an engine on the CPU, GiB."""
    gpu_memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of a GPU's memory that an engine takes."""
    start_timeout_s: PositiveFloat = 600.0
    """Longest start of an engine."""
    item_timeout_s: PositiveFloat = 600.0
    """Longest wait for an item's answers before the engine counts as hung."""
    max_restarts: NonNegativeInt = 3
    """How often a dead engine is replaced before the evaluation ends (on the CPU)."""


class JudgeSettings(Settings):
    """An LLM judge behind an OpenAI-compatible endpoint, for benchmarks whose official metric has one."""

    url: str = ""
    """Address of the API, such as http://host:8000/v1; empty: no judge."""
    model: str = ""
    """Model to ask for."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself is never written down."""
    timeout_s: PositiveFloat = 60.0
    """Longest wait for a reply."""
    num_parallel: PositiveInt = 8
    """Questions asked at once."""

    @model_validator(mode="after")
    def _names_a_model(self) -> Self:
        if bool(self.url) != bool(self.model):
            raise ValueError(
                f"url is {self.url!r} and model is {self.model!r}; a judge has both; set judge.url and judge.model"
            )
        return self


class UserBenchmarkSettings(Settings):
    """A benchmark of your own: a TSV with index, image (base64) or image_path, and these columns."""

    file: str
    """Name of the TSV in the data folder."""
    metric: str
    """One of exact, choice, relaxed, math, contains, yes_no, typed, reward_math, reward_structure, reward_ocr."""
    question_column: str = "question"
    """Column with the question; columns A, B, ... hold its options."""
    answer_column: str = "answer"
    """Column with the key."""
    category_column: str = "category"
    """Column with a category to report by; the file may lack it."""


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
    """Your own benchmarks, by name."""
    sampling: SamplingSettings = SamplingSettings()
    engine: EngineSettings = EngineSettings()
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
