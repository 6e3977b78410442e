"""The settings of the data."""

from __future__ import annotations

from typing import Self

from pydantic import PositiveFloat, model_validator

from tinyr1v_ray.config.base import Settings, Share


class DataSettings(Settings):
    """Where prompts come from and which column means what."""

    train: tuple[str, ...] = ()
    """Sources: parquet or jsonl files, image folders, hub names (`owner/name:split`), or `miniature:DOMAIN`."""
    evaluation: tuple[str, ...] = ()
    """Held-out sources, in the same forms."""
    domain: str = "math"
    """Domain of sources that have no domain column; decides how answers are scored."""
    question_column: str = "question"
    """Column with the question: a text, or a conversation whose last message it is; a dot leads into a struct."""
    answer_column: str = "answer"
    """Column with the reference answer; of a list, each is right. A dot leads in: `reward_model.ground_truth`."""
    image_column: str = "image"
    """Column with one image, a list of images or nothing; empty when no source has images outside of conversations."""
    id_column: str = "prompt_id"
    """Column with stable ids; empty: ids are made from the content."""
    domain_column: str = "domain"
    """Column with the domain; empty: `domain` holds for all."""
    difficulty_column: str = "difficulty"
    """Column with a difficulty to report by; empty: none."""
    system_prompt: str = ""
    """System turn; empty: the chat template's own default."""
    question_template: str = "{question}"
    """How a question is put to the model; holds {question} once."""
    shuffle: bool = True
    """Shuffle each epoch by seed and epoch."""
    max_skipped_share: Share = 0.05
    """Largest share of items that are left out (unreadable, empty, too long, twice) before the run is refused."""
    max_image_megapixels: PositiveFloat = 64.0
    """Images with more pixels than this are not decoded (decompression bombs)."""

    @model_validator(mode="after")
    def _template_has_a_place(self) -> Self:
        if self.question_template.count("{question}") != 1:
            raise ValueError(
                f"question_template {self.question_template!r} must hold {{question}} once; add the placeholder"
            )
        return self
