"""`tinyr1v merge`: several experts of one base become one model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyr1v_ray.cli.arguments import given_settings

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from tinyr1v_ray.merging.session import MergeSummary

METHODS = "amm, wudi, average, task_arithmetic, ties, dare, iso_c, ram, ram_plus, resmerge, swudi, function"


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "merge",
        help="merge specialists of one base into one model (AMM and others)",
        description="Merge experts of one base without data. Every tensor is accounted for, inputs are read lazily, an "
        "interrupted merge continues where it was, and the output is checked against its hashes before it appears.",
        epilog="example: tinyr1v merge --base Qwen2.5-VL-3B-Instruct --expert math --expert ocr --output merged",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file, or a name of tinyr1v configs list")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as method.amm.steps=100")
    parser.add_argument("--base", metavar="DIR", help="the model that every expert started from, or 'miniature'")
    parser.add_argument(
        "--expert", action="append", metavar="DIR", help="an expert: full checkpoint or PEFT LoRA folder; repeat it"
    )
    parser.add_argument("--method", metavar="NAME", help=f"one of {METHODS} (default: amm)")
    parser.add_argument("--output", metavar="DIR", help="folder to be created")
    parser.add_argument("--output-dtype", metavar="NAME", help="float32 (default) or bfloat16")
    parser.add_argument("--donor", metavar="WHO", help="whose tokenizer and templates: base (default) or 0, 1, ...")
    parser.add_argument("--num-workers", type=int, metavar="N", help="Ray workers; 0 merges in this process")
    parser.add_argument("--device", metavar="NAME", help="cpu (default) or cuda")
    parser.add_argument("--plan", action="store_true", help="print what would be done and what it needs; write nothing")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="continue an interrupted merge (default), or start it again from nothing",
    )
    parser.add_argument("--verbose", action="store_true", help="one line per tensor")
    parser.set_defaults(run=run, flags=_flags)


def run(options: argparse.Namespace) -> int:
    """Check, plan, merge, say what came out."""
    from tinyr1v_ray.config.base import parse_settings
    from tinyr1v_ray.config.custom_function import look_here
    from tinyr1v_ray.config.merge import MergeConfig

    look_here()
    config = parse_settings(MergeConfig, given_settings(options))

    from tinyr1v_ray.jobs.merge import job as merge_job
    from tinyr1v_ray.jobs.merge.progress import MergeProgress
    from tinyr1v_ray.telemetry.display import Display

    prepared = merge_job.prepare(config)
    if options.plan:
        from tinyr1v_ray.planning.merge_plan import dry_run

        print("\n".join(dry_run(prepared)))
        return 0
    for line in prepared.conflicts:
        print(f"conflict: {line}")
    with Display() as display, MergeProgress(display, per_tensor=options.verbose) as progress:
        summary = merge_job.run_merge_job(prepared, progress)
    print("\n".join(_say(summary)))
    return 0


def _flags(options: argparse.Namespace) -> dict[tuple[str, ...], Any]:
    """What the flags say, by the setting's keys; None where a flag is not given."""
    return {
        ("base",): options.base,
        ("experts",): options.expert,
        ("output",): options.output,
        ("donor",): options.donor,
        ("resume",): options.resume,
        ("method", "name"): options.method,
        ("method", "output_dtype"): options.output_dtype,
        ("job", "num_workers"): options.num_workers,
        ("job", "device"): options.device,
    }


def _say(summary: MergeSummary) -> list[str]:
    lines = [f"warning: {line}" for line in summary.warnings]
    if summary.resumed_tasks:
        lines.append(f"continued an interrupted merge: {summary.resumed_tasks} tensors were there already")
    for name, counts in summary.counts.items():
        words = ", ".join(f"{count} {action}" for action, count in counts.items())
        lines.append(f"{name}: {words}" if name else words)
    return [*lines, f"merged model: {summary.output}"]
