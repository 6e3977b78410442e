"""`tinyr1v plan`: what a configuration would need and cost, before anything is started."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tinyr1v_ray.errors import ConfigError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_LEAST, _MOST = 1e-3, 1e9
"""Of a mean length or a throughput, tokens (a second)."""


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "plan",
        help="what a configuration needs and costs on a cluster; starts nothing",
        description="Work out, from the configuration and the model's shapes alone, placement, memory of every "
        "actor, batch arithmetic, disk, and time. Nothing is started and no weights are read. Exit code 0, or 2 when "
        "the run does not fit the cluster named by --cluster (then with the nearest change that would).",
        epilog="example: tinyr1v plan --config configs/lipo_math_8gpu.yaml --cluster 4x8xH100-80GB",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="a train, merge, evaluate or run configuration"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the file's")
    parser.add_argument(
        "--cluster",
        metavar="SHAPE",
        help="NODESxGPUSxKIND such as 4x8xH100-80GB, also with the host of a node (1x8xA100-80GB,96cpu,1024GB), or "
        "1xcpu16-64GB (default: 1x8xH100-80GB for what asks for GPUs, else this machine)",
    )
    parser.add_argument(
        "--throughput",
        metavar="generate=N,learn=N",
        default="",
        help="completion tokens a second of all engines and of the whole learner (default: estimated)",
    )
    parser.add_argument(
        "--recorded", type=Path, metavar="RUN", help="throughput and lengths of an earlier run's folder"
    )
    parser.add_argument(
        "--expect",
        metavar="prompt=N,image=N,completion=N",
        default="",
        help="mean tokens of a prompt, of its images among them, and of a completion (default: assumed)",
    )
    parser.add_argument(
        "--shape", default="", metavar="NAME", help="take a model's shapes from NAME where it is not here yet"
    )
    parser.add_argument("--show-settings", action="store_true", help="print every resolved setting too")
    parser.add_argument("--json", action="store_true", help="print one JSON object, resolved settings included")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Plan and print; 2 when the named cluster is too small."""
    from tinyr1v_ray.cluster.shape import parse_cluster
    from tinyr1v_ray.config.base import read_yaml
    from tinyr1v_ray.config.custom_function import look_here
    from tinyr1v_ray.planning.make import make_plan
    from tinyr1v_ray.planning.plan import PlanRequest, plan_json, plan_lines, settings_lines

    look_here()
    request = PlanRequest(
        path=options.config,
        tree=read_yaml(options.config),
        overrides=options.overrides,
        cluster=parse_cluster(options.cluster) if options.cluster is not None else None,
        throughput=_numbers("--throughput", options.throughput, ("generate", "learn")),
        recorded=options.recorded,
        expect=_numbers("--expect", options.expect, ("prompt", "image", "completion")),
        shape=options.shape,
    )
    plan = make_plan(request)
    text = plan_json(plan) if options.json else "\n".join(plan_lines(plan))
    if options.show_settings and not options.json:
        text = "\n".join([text, "", "Resolved settings", *settings_lines(plan.settings)])
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2 if plan.problems and options.cluster is not None else 0


def _numbers(flag: str, text: str, names: tuple[str, ...]) -> dict[str, float]:
    """`name=number,...` as a mapping; raises ConfigError."""
    values: dict[str, float] = {}
    for part in text.split(",") if text else ():
        name, _, number = part.partition("=")
        value = float(number) if _NUMBER.fullmatch(number) else 0.0
        if name not in names or name in values or not _LEAST <= value <= _MOST:
            example = ",".join(f"{known}=N" for known in names)
            raise ConfigError(
                f"{flag} has {part[:100]!r}; it is {example}, each once, with numbers from {_LEAST:g} to {_MOST:g}; "
                "correct it"
            )
        values[name] = value
    return values
