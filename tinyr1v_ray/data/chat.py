"""A question that is a conversation: a list of messages, as chat models take them.

The rule: the last message is the user's and is the question; what comes before it is its history. A message's content
is a text, or a list of parts of which some are images; each image stands in the text as its mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tinyr1v_ray.errors import DataError

IMAGE_MARK = "<image>"
"""Where a text wants an image."""
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
_KEYS = (("role", "content"), ("from", "value"))
"""Names of speaker and content; the second pair is that of ShareGPT and LLaVA."""


@dataclass(frozen=True)
class Turn:
    """One message: `role` is system, user or assistant, `content` a text with marks where images stand."""

    role: str
    content: str


@dataclass(frozen=True)
class Chat:
    """A conversation that ends in the user's question, and the cells of images that its parts hold, in order.

    >>> read_chat([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What? "}]}])
    Chat(turns=(Turn(role='user', content='<image> What?'),), images=())
    """

    turns: tuple[Turn, ...]
    images: tuple[Any, ...]


def read_chat(cell: Any) -> Chat | None:
    """The conversation in a cell, also as JSON text; None for what is none.

    Raises DataError for a conversation of other speakers or media, or one that does not end with the user's words.
    """
    messages = _messages(cell)
    if messages is None:
        return None
    images: list[Any] = []
    turns = tuple(Turn(_role(speaker), _content(content, images).strip()) for speaker, content in messages)
    if turns[-1].role != "user" or not turns[-1].content.replace(IMAGE_MARK, "").strip():
        raise DataError(
            f"the conversation ends with {turns[-1].content[:40]!r} of the {turns[-1].role}; its last message is the "
            "user's question; remove what follows it"
        )
    return Chat(turns, tuple(images))


def _messages(cell: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(cell, str) and cell.lstrip().startswith("[") and cell.rstrip().endswith("]"):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return None
    if not isinstance(cell, list) or not cell or not all(isinstance(message, Mapping) for message in cell):
        return None
    for speaker, content in _KEYS:
        if all(message.get(speaker) is not None and content in message for message in cell):
            return [(message[speaker], message[content]) for message in cell]
    return None


def _role(speaker: Any) -> str:
    if speaker not in _ROLES:
        raise DataError(f"a message is of {str(speaker)[:40]!r}; they are of {', '.join(_ROLES)}; rename or remove it")
    return _ROLES[speaker]


def _content(content: Any, images: list[Any]) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise DataError(f"a message holds a {type(content).__name__}; it holds a text or a list of parts; convert it")
    return "".join(_part(part, images) for part in content)


def _part(part: Any, images: list[Any]) -> str:
    """Text of a part; an image's cell, where the part holds one, goes to `images`."""
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if kind in ("image", "image_url"):
        images.extend(_image_cells(part))
        return IMAGE_MARK
    if kind in ("text", "input_text", None) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise DataError(f"a message has a part of type {str(kind)[:40]!r}; parts are text and image; remove it")


def _image_cells(part: Mapping[str, Any]) -> Iterator[Any]:
    for key in ("image", "image_url", "url", "path", "bytes"):
        cell = part.get(key)
        cell = cell.get("url") if key == "image_url" and isinstance(cell, Mapping) else cell
        if cell is not None:
            yield cell
            return
