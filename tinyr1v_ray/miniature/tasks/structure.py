"""Structured data: read charts and tables that are drawn from real data.

Values are found by going through them with their labels; the first and the last label can be read at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from tinyr1v_ray.miniature.tasks.digits import CELL_PX
from tinyr1v_ray.miniature.tasks.drawing import blank, write_text
from tinyr1v_ray.miniature.tasks.item import Item, Thoughts
from tinyr1v_ray.miniature.tasks.pools import Pool
from tinyr1v_ray.miniature.tasks.tables import Slice, draw_slice

COLOURS = ((120, 170, 220), (230, 160, 110), (140, 200, 140), (200, 150, 200))
GRID = (150, 150, 150)
BAR_AREA_PX = 2 * CELL_PX


@dataclass(frozen=True)
class _Series:
    """One column of a slice, as a question sees it. `of` is " of mpg" for tables and empty for charts."""

    labels: tuple[str, ...]
    values: tuple[int, ...]
    of: str


@dataclass(frozen=True)
class _Asked:
    """A question about a series: values that must be looked at, values that are gone through up to the last of them,
    and what is made of them in the fewest signs and in a sentence, both empty where they are the answer."""

    question: str
    answer: str
    difficulty: int
    num_read: int
    result: str = ""
    sentence: str = ""


def _ask_label(series: _Series, rng: np.random.Generator) -> _Asked:
    place = int(rng.integers(2))
    return _Asked(f"What is the {('first', 'last')[place]} label?", series.labels[-place], 1, 0)


def _ask_value(series: _Series, rng: np.random.Generator) -> _Asked:
    place = int(rng.integers(len(series.labels)))
    label, value = series.labels[place], series.values[place]
    return _Asked(f"What is the value{series.of} for {label}?", str(value), 1, place + 1, "", f"{label} has {value}.")


def _ask_extreme(series: _Series, rng: np.random.Generator) -> _Asked:
    largest = rng.random() < 0.5
    place = int(np.argmax(series.values) if largest else np.argmin(series.values))
    word = "largest" if largest else "smallest"
    label, value = series.labels[place], series.values[place]
    count = len(series.labels)
    sentence = f"The {word} is {value} for {label}."
    return _Asked(f"Which label has the {word} value{series.of}?", label, count, count, f"{value} {label}", sentence)


def _ask_two(series: _Series, rng: np.random.Generator) -> _Asked:
    first, second = (int(place) for place in rng.permutation(len(series.labels))[:2])
    if series.values[first] < series.values[second]:
        first, second = second, first
    high, low = series.values[first], series.values[second]
    num_read = max(first, second) + 1
    if rng.random() < 0.5:
        step = f"{high}-{low}={high - low}"
        question = (
            f"How much larger is the value{series.of} for {series.labels[first]} than for {series.labels[second]}?"
        )
        return _Asked(question, str(high - low), 2, num_read, step, f"So {step}.")
    step = f"{high}+{low}={high + low}"
    question = f"What is the sum{series.of} for {series.labels[first]} and {series.labels[second]}?"
    return _Asked(question, str(high + low), 2, num_read, step, f"So {step}.")


KINDS = ((_ask_value, 0.45), (_ask_extreme, 0.25), (_ask_two, 0.15), (_ask_label, 0.15))
"""Kinds of question and their shares."""


def draw_chart(
    labels: tuple[str, ...], values: tuple[int, ...], colour: tuple[int, int, int]
) -> tuple[Image.Image, tuple[str, ...]]:
    """Bars with their values on top and labels below, one column of cells each; and the cells' texts.

    A value that would cross the border of two cells is moved up to the border.
    """
    canvas = blank(len(labels), 3)
    pen = ImageDraw.Draw(canvas)
    cells = [["", "", label] for label in labels]
    for column, (label, value) in enumerate(zip(labels, values, strict=True)):
        centre = (column + 0.5) * CELL_PX
        top = BAR_AREA_PX - round((BAR_AREA_PX - 16) * value / max(values))
        pen.rectangle((centre - 9, min(top, BAR_AREA_PX - 2), centre + 9, BAR_AREA_PX), fill=colour)
        height = top - 7 if top - 7 <= CELL_PX - 7 or top - 7 >= CELL_PX + 6 else CELL_PX - 7
        write_text(canvas, str(value), (centre, height))
        write_text(canvas, label, (centre, BAR_AREA_PX + 14))
        cells[column][height // CELL_PX] = str(value)
    pen.line((0, BAR_AREA_PX, canvas.width, BAR_AREA_PX), fill=GRID)
    return canvas, tuple(column[row] for row in range(3) for column in cells)


def draw_table(part: Slice) -> Image.Image:
    """A header row, a label column and whole numbers, one cell each, with grid lines."""
    canvas = blank(1 + len(part.column_labels), 1 + len(part.row_labels))
    pen = ImageDraw.Draw(canvas)
    for column in range(1, 1 + len(part.column_labels)):
        pen.line((column * CELL_PX, 0, column * CELL_PX, canvas.height), fill=GRID)
    for row in range(1, 1 + len(part.row_labels)):
        pen.line((0, row * CELL_PX, canvas.width, row * CELL_PX), fill=GRID)
    for row, texts in enumerate(_grid(part)):
        for column, text in enumerate(texts):
            if text:
                write_text(canvas, text, ((column + 0.5) * CELL_PX, (row + 0.5) * CELL_PX))
    return canvas


def _grid(part: Slice) -> list[tuple[str, ...]]:
    """The table's texts, row by row."""
    header = ("", *part.column_labels)
    return [header, *((label, *map(str, row)) for label, row in zip(part.row_labels, part.values, strict=True))]


def structure_item(pool: Pool, rng: np.random.Generator) -> Item:
    """A chart or a table and one question; difficulty is the number of values that must be looked at.

    Each value that is gone through is a step that is needed, and so is what is then made of them.
    """
    is_chart = rng.random() < 0.5
    kind = KINDS[int(rng.choice(len(KINDS), p=[share for _, share in KINDS]))][0]
    while True:
        part = draw_slice(pool, rng, num_columns=1 if is_chart else 2, max_rows=5 if is_chart else 4)
        column = int(rng.integers(len(part.column_labels)))
        values = tuple(row[column] for row in part.values)
        if len(set(values)) == len(values):
            break
    if is_chart:
        image, cells = draw_chart(part.row_labels, values, COLOURS[int(rng.integers(len(COLOURS)))])
    else:
        image = draw_table(part)
        cells = tuple(text for row in _grid(part) for text in row)
    series = _Series(part.row_labels, values, "" if is_chart else f" of {part.column_labels[column]}")
    asked = kind(series, rng)
    pairs = [f"{label} {value}" for label, value in zip(series.labels, values, strict=True)]
    needed = ": ".join(filter(None, (",".join(pairs[: asked.num_read]), asked.result)))
    thoughts = Thoughts(
        needed=needed,
        long=" ".join(filter(None, (f"The values are {', '.join(pairs)}.", asked.sentence))),
        check=f"Let me check: {needed or asked.answer}.",
    )
    sources = (*part.sources, *part.column_labels)
    need = asked.num_read + bool(asked.result)
    return Item(image, asked.question, asked.answer, asked.difficulty, need, sources, cells, thoughts)
