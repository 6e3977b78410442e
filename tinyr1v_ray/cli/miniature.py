"""`tinyr1v miniature build`: make the embedded model and data from a seed."""

from __future__ import annotations

import argparse
from pathlib import Path


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too small; it must be at least 1")
    return number


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command; nothing heavy is imported here."""
    miniature = subparsers.add_parser("miniature", help="make the embedded model and its data from a seed")
    actions = miniature.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser(
        "build",
        help="tokenizer, model, warm-up, data files and a contact sheet",
        description="Make the miniature: a Qwen2.5-VL of two million parameters that has learned a little of reading "
        "digits, arithmetic, charts and tables, and the data to train it further. About 20 minutes on 2 idle cores; "
        "with --shipped-base seconds.",
    )
    build.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make; it must not exist")
    build.add_argument("--seed", type=int, default=0, help="seed of weights, items and sampling (default: 0)")
    build.add_argument("--steps", type=_positive, default=None, metavar="N", help="warm-up steps (default: as shipped)")
    build.add_argument("--measure", type=_positive, default=1000, metavar="N", help="items a domain to measure on")
    build.add_argument("--threads", type=_positive, default=2, metavar="N", help="CPU threads (default: 2)")
    build.add_argument("--shipped-base", action="store_true", help="copy the package's base instead of training one")
    miniature.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build with a progress bar; returns the exit status."""
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from tinyr1v_ray.miniature.assemble import BuildSettings, build
    from tinyr1v_ray.miniature.warmup import WarmupSettings

    warmup = replace(WarmupSettings(), seed=args.seed)
    if args.steps is not None:
        warmup = replace(warmup, num_steps=args.steps)
    settings = BuildSettings(args.output, warmup, args.measure, args.threads, args.shipped_base)
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def on_progress(stage: str, done: int, total: int) -> None:
            name = stage.split(",")[0]
            if name not in tasks:
                tasks[name] = progress.add_task(stage, total=total)
            progress.update(tasks[name], description=stage, completed=done)

        build(settings, on_progress)
    print(f"wrote {args.output}/base, {args.output}/data and {args.output}/contact_sheet.png")
    return 0
