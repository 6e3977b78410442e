"""OCR: read two to five handwritten digits, as they stand or in order.

What stands there can be written down at once; digits in order must be read first and sorted then.
"""

from __future__ import annotations

import numpy as np

from tinyr1v_ray.miniature.tasks.digits import draw_handwritten
from tinyr1v_ray.miniature.tasks.drawing import blank, paste_cell
from tinyr1v_ray.miniature.tasks.item import Item, Thoughts
from tinyr1v_ray.miniature.tasks.pools import Pool

QUESTIONS = ("Read the number.", "Which number is written here?", "Write down the digits.")
SORTED_QUESTION = "Write the digits from smallest to largest."
SORTED_SHARE = 0.3
NUM_DIGITS = (2, 3, 4, 5)
LATER_SHARES = (0.05, 0.15, 0.3, 0.5)
"""Shares of the lengths in RL and evaluation: longer than in the warm-up (equal shares), which leaves room to learn."""
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def ocr_item(pool: Pool, rng: np.random.Generator) -> Item:
    """A row of cells with one digit each; longer numbers are harder, and each digit is a step where they are sorted."""
    shares = None if pool is Pool.WARMUP else LATER_SHARES
    digits = [int(digit) for digit in rng.integers(0, 10, size=rng.choice(NUM_DIGITS, p=shares))]
    canvas = blank(len(digits), 1)
    sources = []
    for column, digit in enumerate(digits):
        cell, index = draw_handwritten(digit, pool, rng)
        paste_cell(canvas, cell, column, 0)
        sources.append(f"digit-{index}")
    is_sorted = rng.random() < SORTED_SHARE
    answer = "".join(map(str, sorted(digits) if is_sorted else digits))
    listed = ",".join(map(str, digits))
    named = [f"The {ORDINALS[place]} digit is {digit}." for place, digit in enumerate(digits)]
    thoughts = Thoughts(
        needed=listed if is_sorted else "",
        long=" ".join(named),
        check=f"Let me check: {listed}.",
    )
    question = SORTED_QUESTION if is_sorted else QUESTIONS[int(rng.integers(len(QUESTIONS)))]
    need = len(digits) if is_sorted else 0
    cells = tuple(map(str, digits))
    return Item(canvas, question, answer, len(digits) - 1, need, tuple(sources), cells, thoughts)
