"""Tokenizer, chat template and image processor of a model, under the run's pixel limits.

The learner and every engine build theirs from the same folder and limits, and so count the same image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from tinyr1v_ray.config.train import ModelSettings
from tinyr1v_ray.data.model_folder import check_context, folder_family, read_json
from tinyr1v_ray.errors import DataError, ModelError
from tinyr1v_ray.models.family import Tensors
from tinyr1v_ray.types import ImageRef

IMAGE_MARK = "<image>"
"""Where a question wants its images; a question without marks gets them in front."""


_NUM_SIZES = 256
"""Sizes of images whose tokens are remembered."""


class PromptProcessor:
    """Turns questions into token ids and images into what the model's family makes of them.

    `eos_token_ids` are all ids that end an answer (generation config first), `image_token_id` is the placeholder.
    Raises ModelError when transformers cannot load the folder or the template is missing.
    """

    def __init__(self, folder: Path, settings: ModelSettings) -> None:
        self.folder = folder
        self.family = folder_family(folder, settings.family)
        try:
            self.processor = self.family.load_processor(folder, settings)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"processor of {folder} cannot be loaded: {reason}; it is a {self.family.name}'s; restore it"
            ) from error
        self.tokenizer = self.processor.tokenizer
        if not getattr(self.processor, "chat_template", None):
            raise ModelError(
                f"model folder {folder} has no chat template; prompts are made by it; add chat_template.jinja"
            )
        self.image_token_id = int(self.tokenizer.convert_tokens_to_ids(self.family.image_token))
        self.image_tokens = lru_cache(maxsize=_NUM_SIZES)(partial(self.family.image_tokens, self.processor))
        self.eos_token_ids = _eos_token_ids(folder, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        self.pad_token_id = int(self.eos_token_ids[0] if pad is None else pad)

    def num_image_tokens(self, width_px: int, height_px: int) -> int:
        """Tokens that the language model sees for an image."""
        return len(self.image_tokens(width_px, height_px))

    def render(self, question: str, num_images: int, system_prompt: str = "") -> str:
        """The conversation as the model reads it, up to where its answer starts.

        Images stand where the question marks them (`<image>`, once each), else before it. Raises DataError when the
        marks do not match the images.
        """
        messages: list[dict[str, Any]] = []
        if system_prompt:
            messages.append({"role": "system", "content": system_prompt})
        messages.append({"role": "user", "content": _interleave(question, num_images)})
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def encode(self, text: str, num_images: int) -> tuple[int, ...]:
        """Token ids with one placeholder per image; raises DataError when the text smuggles in others."""
        token_ids = tuple(self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"])
        num_placeholders = token_ids.count(self.image_token_id)
        if num_placeholders != num_images:
            raise DataError(
                f"the text has {num_placeholders} image placeholders for {num_images} images; the chat template puts "
                "one for each image and the question may hold none; clean the question or correct the template"
            )
        return token_ids

    def expand(self, token_ids: Sequence[int], images: Sequence[ImageRef]) -> list[int]:
        """Token ids as the language model sees them: each placeholder replaced by its image's tokens."""
        shown = iter([self.image_tokens(image.width_px, image.height_px).token_ids_N for image in images])
        expanded: list[int] = []
        for token_id in token_ids:
            expanded.extend(next(shown).tolist() if token_id == self.image_token_id else [token_id])
        return expanded

    def pixel_inputs(self, images: Sequence[Image.Image]) -> Tensors:
        """What the vision tower takes of at least one RGB image, in order."""
        return self.family.pixel_inputs(self.processor, images)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of sampled ids, special tokens left out."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)


def load_processor(folder: Path, settings: ModelSettings) -> PromptProcessor:
    """The processor of a checked model folder (see `resolve_model_folder`) under the settings' limits.

    Raises ModelError when it does not load or the model's context is shorter than `model.max_length`.
    """
    check_context(folder, settings.max_length)
    return PromptProcessor(folder, settings)


def _eos_token_ids(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    declared = read_json(path).get("eos_token_id") if path.is_file() else None
    ids = declared if isinstance(declared, list) else [declared]
    found = dict.fromkeys(int(token_id) for token_id in [*ids, tokenizer.eos_token_id] if token_id is not None)
    if not found:
        raise ModelError(f"model folder {folder} names no end token; answers end by one; add eos_token_id")
    return tuple(found)


def _interleave(question: str, num_images: int) -> list[dict[str, str]]:
    pieces = question.split(IMAGE_MARK)
    if len(pieces) == 1:
        return [{"type": "image"}] * num_images + [{"type": "text", "text": question}]
    if len(pieces) - 1 != num_images:
        raise DataError(
            f"the question marks {len(pieces) - 1} images and has {num_images}; {IMAGE_MARK} stands once for each; "
            "correct the question"
        )
    content: list[dict[str, str]] = []
    for index, piece in enumerate(pieces):
        content += [{"type": "image"}] if index else []
        content += [{"type": "text", "text": piece}] if piece else []
    return content
