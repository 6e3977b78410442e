"""`tinyr1v report`: one HTML file about a whole recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from tinyr1v_ray.report.contents import Contents


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "report",
        help="make the report of a recipe: one HTML file that needs no network",
        description="Read the folder of a finished or unfinished recipe and write RUN/report.html: the paper's tables "
        "beside the run's, curves, the merge table with intervals, and a browser of answers. Nothing is run.",
        epilog="example: tinyr1v report runs/recipe_miniature_cpu",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="the recipe's folder, which holds recipe.json")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the report, and print a short table and its path."""
    from tinyr1v_ray.report.page import write_report

    written = write_report(options.folder)
    print("\n".join([*say(written.contents), f"report: {written.path}"]))
    return 0


def say(contents: Contents) -> list[str]:
    """Accuracy and tokens of every model for which all benchmarks are there, the claims, and what is missing."""
    width = max((len(label) for label in contents.labels.values()), default=5)
    lines = [f"{'model':<{width}}  {'accuracy, % (95 %)':>21}  {'tokens':>7}"] if contents.rows else []
    for row in contents.rows:
        if row.accuracy is not None:
            value, low, high = (100 * share for share in row.accuracy)
            interval = f"{value:.1f} ({low:.1f} to {high:.1f})"
            tokens = "-" if row.tokens is None else f"{row.tokens.value:.1f}"
            lines.append(f"{contents.labels[row.model.name]:<{width}}  {interval:>21}  {tokens:>7}")
    lines += [f"{claim.verdict}: {claim.text}" for claim in contents.claims]
    return lines + [f"note: {note}" for note in contents.notes]
