"""`tinyr1v configs`: the configurations that come with the package."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command and its own."""
    parser = subparsers.add_parser(
        "configs",
        help="list, show and copy the configurations that come along",
        description="The configurations that come with the package. --config takes their names as well as files; copy "
        "one to change it.",
        epilog="example: tinyr1v configs copy miniature_ocr_cpu mine.yaml",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="names, and what each is for")
    show = actions.add_parser("show", help="print one")
    copy = actions.add_parser("copy", help="write one to a new file")
    for action in (show, copy):
        action.add_argument("name", metavar="NAME", help="see tinyr1v configs list")
    copy.add_argument("file", nargs="?", type=Path, metavar="FILE", help="file to make (default: NAME.yaml, here)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List, show or copy; an existing file is left alone."""
    from tinyr1v_ray.config.shipped import shipped_file, shipped_files
    from tinyr1v_ray.errors import ConfigError

    if options.action == "list":
        files = shipped_files()
        width = max(map(len, files))
        for name, path in files.items():
            print(f"{name:<{width}}  {_first_sentence(path.read_text(encoding='utf-8'))}")
        return 0
    source = shipped_file(options.name)
    if options.action == "show":
        print(source.read_text(encoding="utf-8"), end="")
        return 0
    target = options.file or Path(source.name)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be made: {error.strerror}; a copy goes to a new file; name another one"
        ) from error
    print(f"wrote {target}")
    return 0


def _first_sentence(text: str) -> str:
    """Of the comment, or the heading, that a file begins with.

    >>> _first_sentence("# All of it: base,\\n# report. A minute.\\nname: all")
    'All of it: base, report'
    """
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines).partition(". ")[0].removesuffix(".")
