"""Pictures as SVG made by matplotlib, once for light and once for dark pages, without a display and without a date."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH_IN = 4.7
"""338 points: on a phone of 390 px a picture is shown at about its own size, so letters keep theirs."""
FONT_PT = 9.5
INK, FAINT, PAPER = "#1a1d21", "#d5d9de", "#fdfdfc"
_DARK = {INK: "#e8eaed", FAINT: "#3b4148", PAPER: "#16191d"}
"""The page's colours; the dark picture is the light one with these three replaced."""

COLOURS = {
    "lipo": "#0072B2",
    "grpo": "#D55E00",
    "dapo": "#009E73",
    "dr_grpo": "#CC79A7",
    "base": "#7f868e",
}
"""Okabe and Ito's palette, which the colour-blind can tell apart; each reads on light and on dark."""
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7f868e")
MARKERS = {"lipo": "o", "grpo": "s", "dapo": "^", "dr_grpo": "D", "base": "X"}

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT_PT,
    "axes.titlesize": FONT_PT,
    "axes.labelsize": FONT_PT,
    "xtick.labelsize": FONT_PT,
    "ytick.labelsize": FONT_PT,
    "legend.fontsize": FONT_PT,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "tinyr1v",
    "path.simplify": True,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Picture:
    """A picture for light and for dark pages as `data:` addresses, and what it shows in words."""

    light: str
    dark: str
    alt: str
    width_px: int
    height_px: int


@contextmanager
def figure_of(height_in: float = 2.9) -> Iterator[Figure]:
    """A figure in the report's style, to be drawn on and made a `picture` inside the block."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def picture(figure: Figure, alt: str) -> Picture:
    """What is drawn, on light and on dark."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = dark = buffer.getvalue().decode("utf-8")
    for light, replacement in _DARK.items():
        dark = dark.replace(light, replacement)
    width_px, height_px = (round(size_in * 72) for size_in in figure.get_size_inches())
    return Picture(_address(svg), _address(dark), alt, width_px, height_px)


def _address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")
