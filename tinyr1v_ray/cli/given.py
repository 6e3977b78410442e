"""What a command line gives as settings: a file, flags over it, and key=value over both."""

from __future__ import annotations

import argparse
from typing import Any


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The tree that the schema then checks; raises ConfigError. A command with flags of its own has set `flags`."""
    from tinyr1v_ray.config.base import apply_overrides, put_over, read_yaml

    tree = read_yaml(options.config) if options.config else {}
    return apply_overrides(put_over(tree, options.flags(options) if "flags" in options else {}), options.overrides)
