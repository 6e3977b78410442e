"""Tokenizer, chat template and image processor of a model, under the run's pixel limits.

The learner and every engine build theirs from the same folder and limits, and so count the same image tokens.

What a user typed is text: a control token in it (`<|im_end|>`) is never control. `render` puts a guard into each, which
the template's own have not; `encode` takes the guards out again and tokenises the text between the template's control
tokens with control tokens switched off. A tokenizer splits at control tokens before all else, so the pieces have the
ids that the whole has, and a text without a guard is tokenised whole.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.data.chat import IMAGE_MARK, Turn
from tinyr1v_ray.data.model_folder import check_context, folder_family, read_json
from tinyr1v_ray.errors import DataError, ModelError
from tinyr1v_ray.models.family import Tensors
from tinyr1v_ray.types import ImageRef

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GUARD = "\ufdd0"
"""Stands in a control token that is text. Unicode keeps this code point for a program's own use: no text has it."""
_NUM_SIZES = 256
"""Sizes of images whose tokens are remembered."""


class PromptProcessor:
    """Turns questions into token ids and images into what the model's family makes of them.

    `eos_token_ids` are all ids that end an answer (generation config first), `image_token_id` is the placeholder, -1
    where the family reads text alone.
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
        self.tokenizer = getattr(self.processor, "tokenizer", self.processor)
        if not getattr(self.processor, "chat_template", None):
            raise ModelError(
                f"model folder {folder} has no chat template; prompts are made by it; add chat_template.jinja"
            )
        self.image_token_id = -1
        if self.reads_images:
            self.image_token_id = int(self.tokenizer.convert_tokens_to_ids(self.family.image_token))
        self.image_tokens = lru_cache(maxsize=_NUM_SIZES)(partial(self.family.image_tokens, self.processor))
        self.eos_token_ids = _eos_token_ids(folder, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        self.pad_token_id = int(self.eos_token_ids[0] if pad is None else pad)

    @property
    def reads_images(self) -> bool:
        """Whether a prompt may have images."""
        return bool(self.family.image_token)

    def num_image_tokens(self, width_px: int, height_px: int) -> int:
        """Tokens that the language model sees for an image; raises DataError where the family reads text alone."""
        return len(self.image_tokens(width_px, height_px))

    def render(self, question: str, num_images: int, system_prompt: str = "", history: Sequence[Turn] = ()) -> str:
        """The conversation as the model reads it, up to where its answer starts, with guards in what is typed.

        Images stand where the user's texts mark them (`<image>`, once each), else before the first. A system turn of
        the history comes before `system_prompt`. Raises DataError when the marks do not match the images.
        """
        turns = [*history, Turn("user", question)]
        if system_prompt and turns[0].role != "system":
            turns = [Turn("system", system_prompt), *turns]
        guarded = [Turn(turn.role, self._guarded(turn.content)) for turn in turns]
        messages = _with_images(guarded, num_images)
        if not self.reads_images:  # templates of language models take texts, not parts
            messages = [{**message, "content": _text_of(message["content"])} for message in messages]
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def encode(self, text: str, num_images: int) -> tuple[int, ...]:
        """Token ids with one placeholder per image; raises DataError when the template makes another number."""
        token_ids = tuple(self._ids_in_pieces(text) if GUARD in text else self._ids(text))
        num_placeholders = token_ids.count(self.image_token_id)
        if num_placeholders != num_images:
            raise DataError(
                f"the text has {num_placeholders} image placeholders for {num_images} images; the chat template puts "
                "one for each image; correct the template"
            )
        return token_ids

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of a text in which nothing is control."""
        return list(self._plain_tokenizer.encode(text, add_special_tokens=False).ids)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return ids

    def _ids_in_pieces(self, text: str) -> Iterator[int]:
        """Between control tokens, which have odd places, guards are taken out and nothing else is control."""
        for place, piece in enumerate(self._control_tokens.split(text)):
            if place % 2:
                yield self.tokenizer.convert_tokens_to_ids(piece)
            else:
                yield from self.plain_ids(piece.replace(GUARD, ""))

    def _guarded(self, text: str) -> str:
        """With a guard in each control token; a mark is none, also where the family's image token is spelt like it."""
        guarded = (self._control_tokens.sub(_with_guard, piece) for piece in text.split(IMAGE_MARK))
        return IMAGE_MARK.join(guarded)

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        """Splits a text at control tokens, longest first."""
        tokens = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return re.compile(f"({'|'.join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))})")

    @cached_property
    def _plain_tokenizer(self) -> Tokenizer:
        """The same vocabulary, to which control tokens are text. A copy, since the switch is the tokenizer's own state,
        and prompts are made in several threads."""
        tokenizer = copy.deepcopy(self.tokenizer.backend_tokenizer)
        tokenizer.encode_special_tokens = True
        return tokenizer

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


def _with_images(turns: Sequence[Turn], num_images: int) -> list[dict[str, Any]]:
    """Messages as the chat template takes them."""
    messages: list[dict[str, Any]] = [
        {"role": turn.role, "content": _interleave(turn.content) if turn.role == "user" else turn.content}
        for turn in turns
    ]
    asked = [message["content"] for message in messages if message["role"] == "user"]
    num_marks = sum(part["type"] == "image" for content in asked for part in content)
    if num_marks == 0:
        asked[0][:0] = [{"type": "image"}] * num_images
    elif num_marks != num_images:
        raise DataError(
            f"the question marks {num_marks} images and has {num_images}; {IMAGE_MARK} stands once for each; "
            "correct the question"
        )
    return messages


def _interleave(text: str) -> list[dict[str, str]]:
    content: list[dict[str, str]] = []
    for index, piece in enumerate(text.split(IMAGE_MARK)):
        content += [{"type": "image"}] if index else []
        content += [{"type": "text", "text": piece}] if piece else []
    return content


def _text_of(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _with_guard(found: re.Match[str]) -> str:
    return found[0][0] + GUARD + found[0][1:]
