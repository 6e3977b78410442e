"""`tinyr1v doctor`: what of this machine and its environment would stop a run, why, and how to mend it."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyr1v_ray.cli.jobs import use_token_at_hand
from tinyr1v_ray.errors import ConfigError, DataError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from tinyr1v_ray.doctor.finding import Check


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check versions, imports, GPUs, memory, network, Ray, hub and a configuration's files",
        description="Look at everything that a run needs, most of it in fresh processes and side by side (a minute or "
        "two), and say what was seen, why it matters and how to mend it. Exit code 0, or 1 when a run would fail.",
        epilog="examples: tinyr1v doctor --config configs/miniature_ocr_cpu.yaml; tinyr1v doctor --model PATH",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="check this configuration's model, data and folders"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the file's")
    parser.add_argument(
        "--address", default="", metavar="URL", help="also ask a cluster's job server, http://HOST:8265"
    )
    parser.add_argument(
        "--model", metavar="PATH", help="say of this folder or hub name alone whether it can be trained"
    )
    parser.add_argument(
        "--image", type=_image_size, default=(1280, 720), metavar="WxH", help="image to count tokens of (1280x720)"
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this check alone; repeat it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _image_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; it is pixels as WIDTHxHEIGHT; write 1280x720")
    return int(width), int(height)


def run(options: argparse.Namespace) -> int:
    """Look, print; 1 when there is a problem."""
    use_token_at_hand()
    if options.model is not None:
        return _describe_model(options)

    from tinyr1v_ray.config.custom_function import look_here
    from tinyr1v_ray.doctor.finding import Finding, Status, run_checks, to_json

    look_here()
    checks = _checks(options)
    num_done = 0

    def show(finding: Finding) -> None:
        nonlocal num_done
        num_done += 1
        if sys.stderr.isatty():
            sys.stderr.write(
                f"[{num_done}/{len(checks)}] {finding.name}: {finding.status} ({finding.elapsed_s:.1f} s)\n"
            )

    if not options.json:
        sys.stderr.write(f"{len(checks)} checks, side by side; imports take longest\n")
    findings = run_checks(checks, show)
    problems = sum(finding.status == Status.PROBLEM for finding in findings)
    if options.json:
        print(to_json(findings))
        return 1 if problems else 0
    for finding in findings:
        print("\n".join(finding.lines()))
    warnings = sum(finding.status == Status.WARNING for finding in findings)
    print(f"{len(findings)} checks: {problems} problems, {warnings} warnings")
    return 1 if problems else 0


def _describe_model(options: argparse.Namespace) -> int:
    from tinyr1v_ray.config.base import parse_settings
    from tinyr1v_ray.config.custom_function import look_here
    from tinyr1v_ray.config.model import ModelSettings
    from tinyr1v_ray.doctor.model import describe_model

    if options.config is not None:
        raise ConfigError("doctor got --model and --config; one looks at a model, the other at a file; name one")
    look_here()
    for line in describe_model(
        parse_settings(ModelSettings, {"path": options.model}, options.overrides), *options.image
    ):
        print(line)
    return 0


def _checks(options: argparse.Namespace) -> list[Check]:
    from tinyr1v_ray.config.base import apply_overrides, read_yaml
    from tinyr1v_ray.config.kinds import kind_of_config, output_of, values_at
    from tinyr1v_ray.doctor.environment import environment_checks
    from tinyr1v_ray.doctor.machine import machine_checks
    from tinyr1v_ray.doctor.software import software_checks
    from tinyr1v_ray.planning.make import gpus_asked

    if options.overrides and options.config is None:
        raise ConfigError(
            f"doctor got {options.overrides[0]} without --config; settings replace a file's; add --config"
        )
    tree, output = {}, None
    if options.config is not None:
        tree = apply_overrides(read_yaml(options.config), options.overrides)
        with suppress(ConfigError):  # a configuration of no kind is a finding of its own check
            output = output_of(kind_of_config(tree, str(options.config)), tree)
    address = next((str(value) for value in values_at(tree, ("address", "ray_address")) if value), "")
    checks = [
        *software_checks(),
        *machine_checks(gpus_asked(tree), {"results": Path(str(output or "runs"))}),
        *environment_checks(address, options.address, options.config, options.overrides, _uses_hub(tree)),
    ]
    if not options.only:
        return checks
    names = [check.name for check in checks]
    if unknown := [name for name in options.only if name not in names]:
        raise ConfigError(
            f"doctor has no check {unknown[0]!r}; --only names one of its checks; use: {', '.join(names)}"
        )
    return [check for check in checks if check.name in options.only]


def _uses_hub(tree: dict[str, Any]) -> bool:
    """Whether a model or a data set has a name of the hub, as far as unchecked settings say."""
    from tinyr1v_ray.config.kinds import values_at
    from tinyr1v_ray.data.model_folder import is_hub_name

    models = [name for name in values_at(tree, ("path", "base")) if isinstance(name, str)]
    sources = [names for names in values_at(tree, ("train", "evaluation")) if isinstance(names, list)]
    return any(is_hub_name(name) and not Path(name).exists() for name in models) or any(
        _is_hub_source(str(name)) for names in sources for name in names
    )


def _is_hub_source(text: str) -> bool:
    from tinyr1v_ray.data.sources import SourceKind, parse_source

    with suppress(DataError):  # which the check of the configuration names
        return parse_source(text, "train").kind is SourceKind.HUB
    return False
