"""What all commands share: how arguments are refused, and how they become settings."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as every other error is said; `--help` has the rest.

    Settings (`key=value`) may stand anywhere among the flags: argparse itself takes those of one place alone.
    """

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """As argparse does, with the settings that it leaves over put behind those that it took, in their order."""
        options, left_over = self.parse_known_args(None if args is None else list(args), namespace)
        if left_over and ("overrides" not in options or any(word.startswith("-") for word in left_over)):
            self.error(f"unrecognized arguments: {' '.join(left_over)}")
        if left_over:
            options.overrides = [*options.overrides, *left_over]
        return options

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"tinyr1v: {' '.join(message.split())}; see {self.prog} --help\n")


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The tree that the schema then checks: a file, flags over it, key=value over both; raises ConfigError.

    A command with flags of its own has set `flags`.
    """
    from tinyr1v_ray.config.base import apply_overrides, put_over, read_yaml

    tree = read_yaml(options.config) if options.config else {}
    return apply_overrides(put_over(tree, options.flags(options) if "flags" in options else {}), options.overrides)
