"""`tinyr1v verify`: whether a run's records are sound."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "verify",
        help="check that a run's records are sound: groups, versions, checkpoints, metrics",
        description="Check the folder of a training that is not under way, or of a recipe stage by stage: every group "
        "trained once, in the order of issue and no later than allowed; advantages and metrics that follow from the "
        "groups; checkpoints with their hashes, at the records' cursor and state; merged tensors with their hashes; "
        "scores that follow from the answers. Nothing is changed. It ends with 1 where the records break, and says "
        "where.",
        epilog="example: tinyr1v verify runs/miniature_math_cpu",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a line for each training or stage."""
    from tinyr1v_ray.verify.recipe import verify_run

    for line in verify_run(options.folder):
        print(line)
    return 0
