"""Math: arithmetic and simple geometry with handwritten operands.

An operation on handwritten numbers is hard to do at once and easy step by step: here reasoning helps. Some questions
ask for a number that stands in the formula: there it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from tinyr1v_ray.miniature.tasks.digits import CELL_PX, draw_handwritten
from tinyr1v_ray.miniature.tasks.drawing import INK, blank, draw_operator, paste_cell
from tinyr1v_ray.miniature.tasks.item import Item, Thoughts
from tinyr1v_ray.miniature.tasks.pools import Pool


@dataclass(frozen=True)
class _Problem:
    """What is drawn and asked. `steps` are equations such as "3+8=11"; the last right-hand side is the answer. Without
    steps, `answer` is one of the operands."""

    image: Image.Image
    question: str
    operands: tuple[int, ...]
    steps: tuple[str, ...]
    sources: tuple[str, ...]
    cells: tuple[str, ...]
    answer: str = ""


class _Writer:
    """Draws handwritten operands and remembers their samples."""

    def __init__(self, pool: Pool, rng: np.random.Generator) -> None:
        self.pool = pool
        self.rng = rng
        self.sources: list[str] = []

    def write(self, canvas: Image.Image, digit: int, column: int, row: int) -> None:
        cell, index = draw_handwritten(digit, self.pool, self.rng)
        paste_cell(canvas, cell, column, row)
        self.sources.append(f"digit-{index}")

    def formula(self, symbols: list[int | str]) -> tuple[Image.Image, tuple[str, ...]]:
        """Operands and signs in one row, and the cells' texts."""
        canvas = blank(len(symbols), 1)
        for column, symbol in enumerate(symbols):
            if isinstance(symbol, str):
                draw_operator(canvas, symbol, column, 0)
            else:
                self.write(canvas, symbol, column, 0)
        return canvas, tuple(map(str, symbols))


def _running_sum(operands: list[int]) -> tuple[str, ...]:
    totals = np.cumsum(operands)
    return tuple(f"{totals[k]}+{operands[k + 1]}={totals[k + 1]}" for k in range(len(operands) - 1))


def _operands(rng: np.random.Generator, count: int, smallest: int = 1) -> list[int]:
    return [int(value) for value in rng.integers(smallest, 10, size=count)]


def _terms(operands: list[int]) -> list[int | str]:
    symbols: list[int | str] = [operands[0]]
    for operand in operands[1:]:
        symbols += ["+", operand]
    return symbols


def _look_up(writer: _Writer) -> _Problem:
    operands = _operands(writer.rng, int(writer.rng.integers(2, 6)))
    image, cells = writer.formula(_terms(operands))
    place = int(writer.rng.integers(2))
    question = f"What is the {('first', 'last')[place]} number?"
    return _Problem(image, question, tuple(operands), (), tuple(writer.sources), cells, str(operands[-place]))


def _sum(writer: _Writer) -> _Problem:
    operands = _operands(writer.rng, int(writer.rng.integers(2, 6)))
    image, cells = writer.formula(_terms(operands))
    return _Problem(image, "What is the result?", tuple(operands), _running_sum(operands), tuple(writer.sources), cells)


def _product_and_sum(writer: _Writer) -> _Problem:
    a, b, c = _operands(writer.rng, 3)
    image, cells = writer.formula([a, "x", b, "+", c])
    steps = (f"{a}*{b}={a * b}", f"{a * b}+{c}={a * b + c}")
    return _Problem(image, "What is the result?", (a, b, c), steps, tuple(writer.sources), cells)


def _two_products(writer: _Writer) -> _Problem:
    a, b, c, d = _operands(writer.rng, 4)
    image, cells = writer.formula([a, "x", b, "+", c, "x", d])
    steps = (f"{a}*{b}={a * b}", f"{c}*{d}={c * d}", f"{a * b}+{c * d}={a * b + c * d}")
    return _Problem(image, "What is the result?", (a, b, c, d), steps, tuple(writer.sources), cells)


def _rectangle(writer: _Writer) -> _Problem:
    width, height = _operands(writer.rng, 2, smallest=2)
    canvas = blank(3, 3)
    right, bottom = CELL_PX * (1.3 + 1.5 * width / 9), CELL_PX * (1.3 + 1.5 * height / 9)
    ImageDraw.Draw(canvas).rectangle((CELL_PX + 2, CELL_PX + 2, right, bottom), outline=INK, width=2)
    writer.write(canvas, width, 1, 0)
    writer.write(canvas, height, 0, 1)
    cells = ("", str(width), "", str(height), "", "", "", "", "")
    if writer.rng.random() < 0.5:
        steps: tuple[str, ...] = (f"{width}*{height}={width * height}",)
        question = "What is the area of the rectangle?"
    else:
        half = width + height
        steps = (f"{width}+{height}={half}", f"{half}*2={2 * half}")
        question = "What is the perimeter of the rectangle?"
    return _Problem(canvas, question, (width, height), steps, tuple(writer.sources), cells)


def _triangle(writer: _Writer) -> _Problem:
    left, right, base = sides = _operands(writer.rng, 3, smallest=2)
    canvas = blank(3, 3)
    corners = ((CELL_PX * 1.5, 5), (CELL_PX * 0.3, CELL_PX * 2 - 3), (CELL_PX * 2.7, CELL_PX * 2 - 3))
    ImageDraw.Draw(canvas).polygon(corners, outline=INK, width=2)
    for side, (column, row) in zip(sides, ((0, 0), (2, 0), (1, 2)), strict=True):
        writer.write(canvas, side, column, row)
    cells = (str(left), "", str(right), "", "", "", "", str(base), "")
    question = "What is the perimeter of the triangle?"
    return _Problem(canvas, question, tuple(sides), _running_sum(sides), tuple(writer.sources), cells)


KINDS: tuple[tuple[Callable[[_Writer], _Problem], float], ...] = (
    (_sum, 0.35),
    (_product_and_sum, 0.15),
    (_two_products, 0.1),
    (_rectangle, 0.15),
    (_triangle, 0.1),
    (_look_up, 0.15),
)
"""Kinds of problem and their shares."""


def math_item(pool: Pool, rng: np.random.Generator) -> Item:
    """A problem of up to four operations, each a step that is needed; difficulty counts them, 1 where there is none."""
    kind = KINDS[int(rng.choice(len(KINDS), p=[share for _, share in KINDS]))][0]
    problem = kind(_Writer(pool, rng))
    need, listed = len(problem.steps), ",".join(map(str, problem.operands))
    answer = problem.steps[-1].split("=")[1] if need else problem.answer
    worked = [f"{word} {step}." for word, step in zip(_words(need), problem.steps, strict=True)]
    thoughts = Thoughts(
        needed=_chained(problem.steps) if need else "",
        long=" ".join([f"The numbers are {listed}.", *worked]),
        check=f"Let me check: {problem.steps[-1] if need else listed}.",
    )
    image, cells = problem.image, problem.cells
    return Item(image, problem.question, answer, max(need, 1), need, problem.sources, cells, thoughts)


def _chained(steps: tuple[str, ...]) -> str:
    """The steps in the fewest signs: a step that goes on from the last result is appended to it.

    >>> _chained(("8+6=14", "14+8=22")), _chained(("2*3=6", "4*5=20", "6+20=26"))
    ('8+6=14+8=22', '2*3=6,4*5=20,6+20=26')
    """
    text = steps[0]
    for step in steps[1:]:
        result = text.rsplit("=", 1)[1]
        goes_on = step.startswith((f"{result}+", f"{result}*"))
        text += step.removeprefix(result) if goes_on else f",{step}"
    return text


def _words(count: int) -> list[str]:
    return ["First", *["Then"] * (count - 1)][:count]
