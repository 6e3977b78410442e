"""The settings of judges and of benchmarks that a user describes."""

from __future__ import annotations

from typing import Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from tinyr1v_ray.config.base import Settings


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
    """A custom benchmark: a TSV with index, image (base64) or image_path where it has images, and these columns."""

    file: str
    """Name of the TSV in the data folder."""
    metric: str
    """One of exact, choice, relaxed, math, contains, yes_no, typed, reward_math, reward_structure, reward_ocr."""
    images: bool = True
    """Whether its items have images; false for questions in words alone."""
    question_column: str = "question"
    """Column with the question; columns A, B, ... hold its options."""
    answer_column: str = "answer"
    """Column with the key."""
    category_column: str = "category"
    """Column with a category to report by; the file may lack it."""
