"""`tinyr1v run`: the whole recipe, from a base to a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tinyr1v_ray.cli.report import say

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "run",
        help="the whole recipe: train specialists, merge them, evaluate all, report",
        description="Train the specialists and what they are compared with, merge them in every way, evaluate every "
        "model and write a report. Started again, it runs what is not done: a killed stage goes on, a changed setting "
        "runs exactly what depends on it, and finished stages are found again.",
        epilog="example: tinyr1v run --config configs/recipe_miniature_cpu.yaml train.run.num_steps=20",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="YAML file, or a name of tinyr1v configs list"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as seeds=[0,1,2]")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run what is missing, say where the report is."""
    from tinyr1v_ray.config.base import load_settings
    from tinyr1v_ray.config.custom_function import look_here
    from tinyr1v_ray.config.pipeline import PipelineConfig

    look_here()
    config = load_settings(PipelineConfig, options.config, options.overrides)

    from tinyr1v_ray.jobs.recipe.job import run_pipeline

    summary = run_pipeline(config, sys.argv)
    print(f"{summary.num_stages} stages, {summary.num_found} of them done before")
    print("\n".join([*say(summary.report.contents), f"report: {summary.report.path}"]))
    return 0
