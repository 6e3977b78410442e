"""`tinyr1v`: reads the command line, runs a sub-command, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType, ModuleType
from typing import NoReturn

from tinyr1v_ray.cli import (
    configs,
    doctor,
    evaluate,
    jobs,
    merge,
    miniature,
    plan,
    report,
    run,
    submit,
    train,
    verify,
    watch,
)
from tinyr1v_ray.cli.arguments import OneLineParser
from tinyr1v_ray.errors import TinyR1VError

SUB_COMMANDS: tuple[ModuleType, ...] = (
    run,
    train,
    merge,
    evaluate,
    report,
    verify,
    watch,
    plan,
    configs,
    miniature,
    doctor,
    submit,
    jobs,
)


class Version(argparse.Action):
    """Prints what the installed package calls itself; looked up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """End with exit code 0."""
        print(f"tinyr1v {version('tinyr1v-ray')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands; nothing heavy is imported for it."""
    parser = OneLineParser(
        prog="tinyr1v",
        description="Turn a small vision-language model into a concise reasoner: train specialists with LIPO, merge "
        "them with AMM. Distributed over Ray, with vLLM rollout engines and a DeepSpeed learner.",
        epilog="exit codes: 0 done, 1 the run failed, 2 the input is at fault, 130 interrupted",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and end")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for sub_command in SUB_COMMANDS:
        sub_command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns without it; actors set their own
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(options.run(options))
    except TinyR1VError as error:
        sys.stderr.write(f"tinyr1v: {' '.join(str(error).split())}\n")
        return error.exit_code
    except KeyboardInterrupt:
        how = "with --resume" if options.command == "train" else "by the same command"
        sys.stderr.write(f"tinyr1v: interrupted; what was saved stays; continue {how}\n")
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does, by whatever handles that now: asyncio cancels its work first."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(number, frame)


if __name__ == "__main__":
    sys.exit(main())
