"""What all commands share: how arguments are refused, and how they become settings."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as every other error is said; `--help` has the rest."""

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
