"""What a run says at its end: held-out metrics before and after with their intervals, and where its results lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Interval = tuple[float, float, float]
"""An estimate and the two ends of its interval."""


@dataclass(frozen=True)
class HeldOut:
    """Metrics of one domain's held-out items: `accuracy` in [0, 1], `tokens` per answer, with 95 % intervals.

    >>> HeldOut("ocr", 1000, (0.62, 0.59, 0.65), (41.3, 40.2, 42.4)).num_items
    1000
    """

    domain: str
    num_items: int
    accuracy: Interval
    tokens: Interval


@dataclass(frozen=True)
class Change:
    """Differences after - before on the same items, with paired 95 % intervals: `accuracy` in [-1, 1], `tokens`."""

    domain: str
    accuracy: Interval
    tokens: Interval


def format_summary(
    before: Sequence[HeldOut],
    after: Sequence[HeldOut],
    changes: Sequence[Change],
    paths: Mapping[str, Path],
    warnings: Sequence[str] = (),
) -> str:
    """The closing text of a run; `changes` may be empty, and a domain may lack one of the two metrics.

    `warnings` say what the run lacked, a line each, above where its results lie.

    >>> before = [HeldOut("ocr", 1000, (0.62, 0.59, 0.65), (41.3, 40.2, 42.4))]
    >>> after = [HeldOut("ocr", 1000, (0.81, 0.78, 0.83), (13.1, 12.8, 13.4))]
    >>> change = [Change("ocr", (0.19, 0.16, 0.22), (-28.2, -29.2, -27.2))]
    >>> print(format_summary(before, after, change, {"checkpoint": Path("runs/a/checkpoints/step_12")}))
    Held-out results, 95 % intervals in brackets
      domain  items          accuracy                tokens per answer
      ocr     1000   before  62.0 % [59.0, 65.0]     41.3 [40.2, 42.4]
                     after   81.0 % [78.0, 83.0]     13.1 [12.8, 13.4]
                     change  +19.0 % [+16.0, +22.0]  -28.2 [-29.2, -27.2] (-68 %)
      checkpoint  runs/a/checkpoints/step_12
    """
    domains = list(dict.fromkeys(item.domain for item in (*before, *after)))
    rows = [["domain", "items", "", "accuracy", "tokens per answer"]]
    for domain in domains:
        rows += _domain_rows(domain, before, after, changes)
    lines = ["Held-out results, 95 % intervals in brackets", *_align(rows)] if domains else []
    lines += [f"  warning: {warning}" for warning in warnings]
    return "\n".join([*lines, *_align([[label, str(path)] for label, path in paths.items()])])


def _domain_rows(
    domain: str, before: Sequence[HeldOut], after: Sequence[HeldOut], changes: Sequence[Change]
) -> list[list[str]]:
    rows = []
    then = next((item for item in before if item.domain == domain), None)
    now = next((item for item in after if item.domain == domain), None)
    for label, item in (("before", then), ("after", now)):
        if item is not None:
            tokens = _interval(item.tokens, ".1f")
            rows.append([domain, str(item.num_items), label, _interval(_percent(item.accuracy), ".1f", " %"), tokens])
    for change in changes:
        if change.domain == domain:
            tokens = _interval(change.tokens, "+.1f")
            if then is not None and then.tokens[0] > 0:
                tokens += f" ({change.tokens[0] / then.tokens[0]:+.0%})".replace("%", " %")
            rows.append([domain, "", "change", _interval(_percent(change.accuracy), "+.1f", " %"), tokens])
    return [rows[0], *(["", "", *row[2:]] for row in rows[1:])]


def _percent(interval: Interval) -> Interval:
    return 100 * interval[0], 100 * interval[1], 100 * interval[2]


def _interval(interval: Interval, form: str, unit: str = "") -> str:
    return f"{interval[0]:{form}}{unit} [{interval[1]:{form}}, {interval[2]:{form}}]"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip() for row in rows
    ]
