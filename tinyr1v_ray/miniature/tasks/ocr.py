"""OCR: read two to five handwritten digits."""

from __future__ import annotations

import numpy as np

from tinyr1v_ray.miniature.digits import draw_handwritten
from tinyr1v_ray.miniature.drawing import blank, paste_cell
from tinyr1v_ray.miniature.pools import Pool
from tinyr1v_ray.miniature.tasks.item import Item, Thoughts

QUESTIONS = ("Read the number.", "Which number is written here?", "Write down the digits.")
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def ocr_item(pool: Pool, rng: np.random.Generator) -> Item:
    """A row of cells with one digit each; longer numbers are harder."""
    digits = [int(digit) for digit in rng.integers(0, 10, size=rng.integers(2, 6))]
    canvas = blank(len(digits), 1)
    sources = []
    for column, digit in enumerate(digits):
        cell, index = draw_handwritten(digit, pool, rng)
        paste_cell(canvas, cell, column, 0)
        sources.append(f"digit-{index}")
    number = "".join(map(str, digits))
    named = [f"The {ORDINALS[place]} digit is {digit}." for place, digit in enumerate(digits)]
    thoughts = Thoughts(
        short=",".join(map(str, digits)),
        long=" ".join(named),
        check=f"Let me check: {','.join(map(str, digits))}.",
    )
    question = QUESTIONS[int(rng.integers(len(QUESTIONS)))]
    return Item(canvas, question, number, len(digits) - 1, tuple(sources), tuple(number), thoughts)
