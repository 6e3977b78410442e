"""Tokenizer, chat template and image processor of a model, under the run's pixel limits.

The learner and every engine build theirs from the same folder and limits, and so count the same image tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image
from transformers import AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from tinyr1v_ray.config.train import ModelSettings
from tinyr1v_ray.data.model_folder import check_context, read_json
from tinyr1v_ray.errors import DataError, ModelError
from tinyr1v_ray.types import ImageRef

if TYPE_CHECKING:
    import torch

IMAGE_MARK = "<image>"
"""Where a question wants its images; a question without marks gets them in front."""


class PixelInputs(NamedTuple):
    """What the vision tower takes: patches [num_patches, 3 * 2 * 14 * 14] and each image's grid (t, h, w)."""

    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor


class PromptProcessor:
    """Turns questions into token ids and images into patches.

    `eos_token_ids` are all ids that end an answer (generation config first), `image_token_id` is the placeholder.
    Raises ModelError when transformers cannot load the folder or the template is missing.
    """

    def __init__(self, folder: Path, settings: ModelSettings) -> None:
        self.folder = folder
        self.min_pixels, self.max_pixels = settings.min_pixels, settings.max_pixels
        size = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}
        try:
            self.processor = AutoProcessor.from_pretrained(str(folder), trust_remote_code=False, size=size)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"processor of {folder} cannot be loaded: {reason}; it is a Qwen2.5-VL processor; restore it"
            ) from error
        self.tokenizer = self.processor.tokenizer
        if not getattr(self.processor, "chat_template", None):
            raise ModelError(
                f"model folder {folder} has no chat template; prompts are made by it; add chat_template.jinja"
            )
        self.image_token_id = int(self.processor.image_token_id)
        self.eos_token_ids = _eos_token_ids(folder, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        self.pad_token_id = int(self.eos_token_ids[0] if pad is None else pad)

    @property
    def engine_settings(self) -> dict[str, dict[str, int]]:
        """The pixel limits as vLLM's `mm_processor_kwargs`."""
        return {"size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}}

    def grid_thw(self, width_px: int, height_px: int) -> tuple[int, int, int]:
        """Patches of an image in time (1), height and width after the processor's resizing."""
        images = self.processor.image_processor
        height, width = smart_resize(
            height_px, width_px, images.patch_size * images.merge_size, self.min_pixels, self.max_pixels
        )
        return 1, height // images.patch_size, width // images.patch_size

    def num_image_tokens(self, width_px: int, height_px: int) -> int:
        """Placeholder tokens that the language model sees for an image: merged patches."""
        _, height, width = self.grid_thw(width_px, height_px)
        return height * width // self.processor.image_processor.merge_size**2

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
        """Token ids as the language model sees them: each placeholder repeated as its image's tokens."""
        counts = iter([image.num_tokens for image in images])
        expanded: list[int] = []
        for token_id in token_ids:
            expanded.extend([token_id] * (next(counts) if token_id == self.image_token_id else 1))
        return expanded

    def pixel_inputs(self, images: Sequence[Image.Image]) -> PixelInputs:
        """Patches of at least one RGB image, in order."""
        outputs = self.processor.image_processor(images=list(images), return_tensors="pt")
        return PixelInputs(outputs["pixel_values"], outputs["image_grid_thw"])

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
