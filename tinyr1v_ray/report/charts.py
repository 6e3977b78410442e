"""The report's pictures, each from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyr1v_ray.evaluation.statistics import Estimate
from tinyr1v_ray.report.chart import (
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    PAPER,
    SERIES,
    Picture,
    figure_of,
    picture,
)
from tinyr1v_ray.report.dial import DialCase
from tinyr1v_ray.report.findings import REFERENCE_MERGE
from tinyr1v_ray.report.names import ALGORITHM_NAMES
from tinyr1v_ray.report.trainings import Curve

_LONGEST_LABEL = 30
SMOOTHED_FROM = 15
"""Steps from which on a curve is drawn as means over neighbouring steps, with the steps themselves behind."""


@dataclass(frozen=True)
class Point:
    """A model in the plane of tokens and accuracy (a share); `family` gives its colour and mark."""

    label: str
    family: str
    tokens: Estimate
    accuracy: Estimate


def curve_chart(curves: Sequence[Curve], what: str, domain: str) -> Picture:
    """A metric by training step, a line an algorithm with the range over seeds."""
    ends = ", ".join(
        f"{ALGORITHM_NAMES.get(c.algorithm, c.algorithm)} from {c.mean[0]:.3g} to {c.mean[-1]:.3g}" for c in curves
    )
    with figure_of() as figure:
        axes = figure.add_subplot()
        for number, curve in enumerate(curves):
            colour = COLOURS.get(curve.algorithm, SERIES[number % len(SERIES)])
            name = ALGORITHM_NAMES.get(curve.algorithm, curve.algorithm)
            style = ("-", "--", "-.")[number % 3]
            axes.plot(curve.steps, curve.mean, color=colour, linewidth=0.7, alpha=0.45)
            axes.plot(curve.steps, neighbour_means(curve.mean), color=colour, label=name, linestyle=style)
            if curve.num_seeds > 1:
                axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        axes.set_xlabel("step")
        axes.set_title(what, loc="left")
        axes.margins(x=0.02)
        if len(curves) > 1:
            figure.legend(loc="outside upper right", ncols=len(curves), handlelength=2.4, columnspacing=1.2)
        return picture(figure, f"{what} over training steps on {domain}: {ends}.")


def neighbour_means(values: np.ndarray, num_each_side: int = 2) -> np.ndarray:
    """Mean of each value and its neighbours, of fewer at the ends; a short curve is left as it is.

    >>> neighbour_means(np.arange(20.0))[[0, 1, 10, 19]].tolist()
    [1.0, 1.5, 10.0, 18.0]
    """
    if len(values) < SMOOTHED_FROM:
        return values
    places = range(len(values))
    return np.array([values[max(0, place - num_each_side) : place + num_each_side + 1].mean() for place in places])


def frontier_chart(points: Sequence[Point], domain: str) -> Picture:
    """Accuracy against tokens, upper left is better; LIPO's points are joined in the order of boost."""
    said = ", ".join(f"{p.label} {100 * p.accuracy.value:.1f} % at {p.tokens.value:.1f} tokens" for p in points)
    with figure_of(height_in=3.3) as figure:
        axes = figure.add_subplot()
        sweep, named = [point for point in points if point.family == "lipo"], set[str]()
        axes.plot(
            [p.tokens.value for p in sweep], [100 * p.accuracy.value for p in sweep], color=COLOURS["lipo"], linewidth=1
        )
        for point in points:
            x, y = point.tokens.value, 100 * point.accuracy.value
            axes.errorbar(
                x,
                y,
                xerr=_arms(point.tokens, 1),
                yerr=_arms(point.accuracy, 100),
                color=COLOURS.get(point.family, SERIES[-1]),
                label="" if point.family in named else ALGORITHM_NAMES.get(point.family, point.family),
                linestyle="none",
                marker=MARKERS.get(point.family, "o"),
                markersize=6,
                elinewidth=0.9,
            )
            named.add(point.family)
        axes.margins(x=0.12, y=0.12)
        for point, (x_pt, y_pt) in zip(sweep, label_offsets(points, sweep), strict=True):
            axes.annotate(
                point.label,
                (point.tokens.value, 100 * point.accuracy.value),
                xytext=(x_pt, y_pt),
                textcoords="offset points",
                color=INK,
                ha="left" if x_pt > 0 else "right",
                va="bottom" if y_pt > 0 else "top",
            )
        figure.legend(loc="outside upper right", ncols=4, handlelength=1.0, columnspacing=1.2)
        axes.set_xlabel("tokens per answer")
        axes.set_title("accuracy, %", loc="left")
        return picture(figure, f"Accuracy against tokens per answer on {domain}: {said}.")


def label_offsets(points: Sequence[Point], labelled: Sequence[Point]) -> list[tuple[int, int]]:
    """For each labelled point the corner, in points of a letter, that lies farthest from all other points.

    Places are shares of the range that all points span; of corners that are equally far the upper right comes first.
    """
    places_N2 = np.array([[point.tokens.value, point.accuracy.value] for point in points])
    span_2 = np.maximum(np.ptp(places_N2, axis=0), 1e-9)
    found = []
    for point in labelled:
        others = np.array([[p.tokens.value, p.accuracy.value] for p in points if p is not point]).reshape(-1, 2)
        here = np.array([point.tokens.value, point.accuracy.value])

        def room(corner: tuple[int, int], others: np.ndarray = others, here: np.ndarray = here) -> float:
            aside = here + 0.06 * span_2 * np.sign(corner)
            return float(np.hypot(*((others - aside) / span_2).T).min(initial=9.0))

        found.append(max(((6, 5), (-6, 5), (6, -5), (-6, -5)), key=lambda corner: round(room(corner), 9)))
    return found


def interval_chart(rows: Sequence[tuple[str, Estimate, bool]], what: str) -> Picture:
    """Estimates with their intervals, one below the other; the flagged ones in the leading colour."""
    said = ", ".join(f"{label} {100 * estimate.value:.1f}" for label, estimate, _ in rows)
    with figure_of(height_in=0.85 + 0.25 * len(rows)) as figure:
        axes = figure.add_subplot()
        for place, (_, estimate, is_leading) in enumerate(rows):
            colour = COLOURS["lipo"] if is_leading else COLOURS["base"]
            axes.errorbar(
                100 * estimate.value, place, xerr=_arms(estimate, 100), color=colour, marker="o", markersize=5
            )
        axes.set_yticks(range(len(rows)), [_short(label) for label, _, _ in rows])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(what)
        return picture(figure, f"{what} with 95 % intervals: {said}.")


def dial_chart(case: DialCase) -> Picture:
    """Retention by overlap, a line a method: AMM in the leading colour, the base dashed."""
    overlaps = [point.overlap for point in case.points]
    lines = {method: [100 * point.retention[method] for point in case.points] for method in case.labels}
    said = "; ".join(
        f"{case.labels[method]} "
        + ", ".join(f"{value:.0f} % at {c:g}" for c, value in zip(overlaps, values, strict=True))
        for method, values in lines.items()
    )
    num_rows = (len(lines) + 1) // 2
    with figure_of(height_in=2.6 + 0.22 * num_rows) as figure:
        axes = figure.add_subplot()
        for number, (method, values) in enumerate(lines.items()):
            is_amm, is_base = method == REFERENCE_MERGE, method == "base"
            axes.plot(
                overlaps,
                values,
                label=_short(case.labels[method]),
                color=COLOURS["lipo"] if is_amm else INK if is_base else SERIES[1:][number % (len(SERIES) - 1)],
                linestyle=":" if is_base else ("-", "--", "-.")[number // (len(SERIES) - 1) % 3],
                linewidth=2.6 if is_amm else 1.3,
                marker="o" if is_amm else None,
                markersize=4,
            )
        axes.set_xlabel("planted cosine of the experts")
        axes.set_title(f"{case.name.replace('_', ' ')}: accuracy kept, %", loc="left")
        figure.legend(loc="outside lower left", ncols=2, handlelength=2.4, columnspacing=1.2)
        return picture(figure, f"Share of the experts' accuracy that is kept, {case.name}: {said}.")


def matrix_chart(names: Sequence[str], values_KK: np.ndarray) -> Picture:
    """A matrix of cosines with its numbers."""
    pairs = [
        f"{names[i]} and {names[j]} {values_KK[i, j]:.3f}" for i in range(len(names)) for j in range(i + 1, len(names))
    ]
    with figure_of(height_in=0.9 + 0.62 * len(names)) as figure:
        axes = figure.add_subplot()
        axes.imshow(np.abs(values_KK), cmap="Blues", vmin=0, vmax=2.0, aspect="auto")
        for i in range(len(names)):
            for j in range(len(names)):
                axes.text(j, i, f"{values_KK[i, j]:.3f}", ha="center", va="center", color="#0b0c0e")
        axes.set_xticks(range(len(names)), [_short(name) for name in names])
        axes.set_yticks(range(len(names)), [_short(name) for name in names])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return picture(figure, f"Cosines of the task vectors: {', '.join(pairs)}.")


def seconds_chart(rows: Mapping[str, Mapping[str, float]], what: str) -> Picture:
    """Horizontal bars, stacked by part; a single part has no legend."""
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    said = ", ".join(f"{label} {sum(row.values()):.0f} s" for label, row in rows.items())
    legend_in = 0.25 * ((len(parts) + 2) // 3) if len(parts) > 1 else 0.0
    with figure_of(height_in=0.85 + 0.26 * len(rows) + legend_in) as figure:
        axes = figure.add_subplot()
        left = np.zeros(len(rows))
        for number, part in enumerate(parts):
            widths = np.array([row.get(part, 0.0) for row in rows.values()])
            colour = FAINT if part == "other" else SERIES[number % len(SERIES)]
            axes.barh(
                range(len(rows)),
                widths,
                left=left,
                color=colour,
                label=part,
                height=0.72,
                edgecolor=PAPER,
                linewidth=0.6,
            )
            left += widths
        axes.set_yticks(range(len(rows)), [_short(label) for label in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds")
        if len(parts) > 1:
            figure.legend(loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.2)
        return picture(figure, f"{what}: {said}.")


def _short(label: str) -> str:
    """A label that leaves room for the picture itself."""
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


def _arms(estimate: Estimate, factor: float) -> list[list[float]]:
    """Lengths of the two arms of an error bar."""
    low, high = estimate.value - estimate.low, estimate.high - estimate.value
    return [[factor * max(0.0, low)], [factor * max(0.0, high)]]
