"""Conversations as questions."""

from __future__ import annotations

import json

import pytest

from tinyr1v_ray.data.chat import Turn, read_chat
from tinyr1v_ray.errors import DataError


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    "cell",
    [
        [user("<image> Why? ")],
        [user([{"type": "image"}, {"type": "text", "text": " Why?"}])],
        [user([{"type": "image", "text": None, "image": None}, {"type": "text", "text": " Why?", "image": None}])],
        [user(["<image>", {"text": " Why?"}])],
        [{"from": "human", "value": "<image> Why?"}],
        json.dumps([user("<image> Why?")]),
    ],
)
def test_one_message_in_all_its_forms(cell: object) -> None:
    chat = read_chat(cell)
    assert chat is not None and (chat.turns, chat.images) == ((Turn("user", "<image> Why?"),), ())


def test_images_of_parts_come_in_order() -> None:
    parts = [
        {"type": "image", "image": "a.png"},
        {"type": "text", "text": "or"},
        {"type": "image_url", "image_url": {"url": "data:,b"}},
        {"type": "image_url", "image_url": "c.png"},
        {"type": "image", "bytes": b"d"},
    ]
    chat = read_chat([{"role": "system", "content": "S"}, user(parts)])
    assert chat is not None and chat.images == ("a.png", "data:,b", "c.png", b"d")
    assert chat.turns == (Turn("system", "S"), Turn("user", "<image>or<image><image><image>"))


@pytest.mark.parametrize(
    "cell",
    [None, "", "Why?", "[1, 2]", "[{", "[]", [], ["Why?"], [{"role": "user"}], {"role": "user"}, 7, [[user("a")]]],
)
def test_what_is_no_conversation(cell: object) -> None:
    assert read_chat(cell) is None


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([user("Why?"), {"role": "assistant", "content": "So."}], "ends with 'So.' of the assistant"),
        ([user("")], "ends with ''"),
        ([user([{"type": "image"}])], "ends with"),
        ([{"role": "tool", "content": "x"}, user("Why?")], "a message is of 'tool'"),
        ([user([{"type": "video", "video": "x" * 9999}])], "a part of type 'video'"),
        ([user({"text": "Why?"})], "holds a dict"),
        ([user([7])], "a part of type 'int'"),
    ],
)
def test_what_cannot_be_asked_is_refused(cell: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_chat(cell)
    assert len(str(caught.value)) < 300
