"""OCR: read two to five handwritten digits."""

from __future__ import annotations

import numpy as np

from tinyr1v_ray.miniature.tasks.digits import draw_handwritten
from tinyr1v_ray.miniature.tasks.drawing import blank, paste_cell
from tinyr1v_ray.miniature.tasks.item import Item, Thoughts
from tinyr1v_ray.miniature.tasks.pools import Pool

QUESTIONS = ("Read the number.", "Which number is written here?", "Write down the digits.")
NUM_DIGITS = (2, 3, 4, 5)
LATER_SHARES = (0.05, 0.15, 0.3, 0.5)
"""Shares of the lengths in RL and evaluation: longer than in the warm-up (equal shares), which leaves room to learn."""
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def ocr_item(pool: Pool, rng: np.random.Generator) -> Item:
    """A row of cells with one digit each; longer numbers are harder."""
    shares = None if pool is Pool.WARMUP else LATER_SHARES
    digits = [int(digit) for digit in rng.integers(0, 10, size=rng.choice(NUM_DIGITS, p=shares))]
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
