"""`tinyr1v watch`: looks on at a run, in the terminal or as a page."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_EVERY_S = 1.0


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "watch",
        help="look on at a run: progress, curves, where every group is, who waits for whom, newest answers",
        description="Show a run that is under way, finished or dead from its folder alone; of a recipe, the training "
        "that is under way. In a terminal it is drawn anew every second until the run or you end it. With "
        "telemetry.page_port a run serves the page itself.",
        epilog="example: tinyr1v watch runs/miniature_math_cpu --page 8300",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--page", type=int, metavar="PORT", help="serve it as a page on this port of 127.0.0.1 (0: one that is free)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show the run until it ends, or serve its page until interrupted."""
    from rich.console import Console
    from rich.live import Live

    from tinyr1v_ray.watch.page import page_served
    from tinyr1v_ray.watch.terminal import screen
    from tinyr1v_ray.watch.view import Watcher

    watcher, console = Watcher(options.folder), Console()
    view = watcher.look()
    try:
        if options.page is not None:
            with page_served(options.folder, options.page) as address:
                print(f"{address} shows {options.folder}; Ctrl-C ends it", flush=True)
                while True:
                    time.sleep(_EVERY_S)
        if not (console.is_terminal and view.is_running):
            console.print(screen(view))
            return 0
        with Live(screen(view), console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while view.is_running:
                time.sleep(_EVERY_S)
                view = watcher.look()
                live.update(screen(view), refresh=True)
    except KeyboardInterrupt:
        pass
    return 0
