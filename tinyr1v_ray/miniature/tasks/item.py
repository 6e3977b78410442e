"""One item of a task, the reasoning that it needs, and the four styles in which the warm-up answers it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from PIL import Image


class Style(StrEnum):
    """How much is written between <think> and </think>."""

    BARE = "bare"
    NEEDED = "needed"
    LONG = "long"
    FULL = "full"


@dataclass(frozen=True)
class Thoughts:
    """The reasoning of an item: `needed` is what the answer rests on, empty where it can be read off the image; `long`
    says it in sentences; `check` repeats a part of it and never changes the result."""

    needed: str
    long: str
    check: str

    def in_style(self, style: Style) -> str:
        """Text between the <think> tags."""
        return {
            Style.BARE: "",
            Style.NEEDED: self.needed,
            Style.LONG: self.long,
            Style.FULL: f"{self.long} {self.check}",
        }[style]


@dataclass(frozen=True)
class Item:
    """An image, a question about it and the answer.

    `sources` names the digit samples or table rows on the image: pools share none, and no two items of a file have
    the same sources and question. `difficulty` starts at 1 and counts the digits to read, less one (OCR), the
    operations (math), or the values that must be looked at (structure). `need` counts the steps of the needed
    reasoning: 0 where all reasoning is idle. `cells` is the text in each 28-pixel cell, row by row, empty where there
    is none or where it crosses cells; the warm-up teaches the vision tower to read with it.
    """

    image: Image.Image
    question: str
    answer: str
    difficulty: int
    need: int
    sources: tuple[str, ...]
    cells: tuple[str, ...]
    thoughts: Thoughts

    def response(self, style: Style) -> str:
        """The whole answer in one style, without the end token."""
        return f"<think>{self.thoughts.in_style(style)}</think><answer>{self.answer}</answer>"
