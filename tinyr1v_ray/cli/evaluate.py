"""`tinyr1v evaluate`: a model's answers to benchmarks, stored and scored."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyr1v_ray.cli.arguments import given_settings

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from tinyr1v_ray.evaluation.benchmarks.scores import BenchmarkScores
    from tinyr1v_ray.jobs.evaluate.job import EvaluationSummary

TEN = "mathvista, mathvision, mathverse, wemath, chartqa, charxiv, ocrbench, ocr_reasoning, mme, mmstar"


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="evaluate a model on the paper's ten benchmarks, your own, or the miniature",
        description="Draw a model's answers with vLLM engines in Ray actors, store every one, and score them. Started "
        "again, a killed evaluation goes on where it was.",
        epilog=f"benchmarks: {TEN} (ten: all of them), miniature:math, miniature:structure, miniature:ocr. "
        "example: tinyr1v evaluate --model runs/merged --benchmarks mathvista,mme --data ~/LMUData",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file, or a name of tinyr1v configs list")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as engine.num_gpus=1")
    parser.add_argument("--model", metavar="DIR", help="model folder or hub name, or 'miniature'")
    parser.add_argument("--benchmarks", metavar="NAME[,NAME]", help="what to evaluate on")
    parser.add_argument("--data", metavar="DIR", help="folder with the TSV files made for VLMEvalKit")
    parser.add_argument("--output", metavar="DIR", help="folder of answers and scores (default: runs/evaluate-MODEL)")
    parser.add_argument("--samples", type=int, metavar="K", help="answers to each item; above 1 the accuracy is avg@K")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 (default) is greedy")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer (default: 2048)")
    parser.add_argument("--limit", type=int, metavar="N", help="about N items of each benchmark, evenly spaced")
    parser.add_argument("--judge-url", metavar="URL", help="OpenAI-compatible API of an LLM judge (default: none)")
    parser.add_argument("--judge-model", metavar="NAME", help="the judge's model")
    parser.add_argument("--rescore", type=Path, metavar="DIR", help="score the stored answers of DIR again; no model")
    parser.add_argument("--rules", action="store_true", help="print the rule that each benchmark follows, and stop")
    parser.set_defaults(run=run, flags=_flags)


def run(options: argparse.Namespace) -> int:
    """Evaluate or score again, and print the scores."""
    from tinyr1v_ray.config.base import parse_settings, put_over, read_yaml
    from tinyr1v_ray.config.custom_function import look_here
    from tinyr1v_ray.config.evaluate import EvaluateConfig
    from tinyr1v_ray.errors import ConfigError

    if options.rules:
        from tinyr1v_ray.evaluation.benchmarks.registry import ALL_TEN, find_benchmarks
        from tinyr1v_ray.evaluation.benchmarks.rules import described_rules

        flags = _flags(options)
        names = flags.pop(("benchmarks",)) or [ALL_TEN]
        if options.config or options.rescore or options.overrides or any(flags.values()):
            raise ConfigError(
                "--rules is given with other arguments; it prints rules and evaluates nothing; leave out all but "
                "--benchmarks"
            )
        print("\n".join(described_rules(find_benchmarks(names, {}))))
        return 0
    if options.rescore is not None:
        tree = put_over(read_yaml(options.config) if options.config else {}, _flags(options))
        overrides = [f"judge.{key}={value}" for key, value in tree.pop("judge", {}).items()] + options.overrides
        if tree or not all(override.startswith(("judge.", "progress=")) for override in overrides):
            raise ConfigError(
                "--rescore comes with other settings; stored answers are scored as they are, with a judge if one is "
                "named; remove the others"
            )
        from tinyr1v_ray.jobs.evaluate.job import run_rescoring

        summary = run_rescoring(options.rescore, overrides)
    else:
        look_here()
        config = parse_settings(EvaluateConfig, given_settings(options))

        from tinyr1v_ray.jobs.evaluate.job import run_evaluation

        summary = run_evaluation(config)
    print("\n".join(_say(summary)))
    return 0


def _flags(options: argparse.Namespace) -> dict[tuple[str, ...], Any]:
    """What the flags say, by the setting's keys; None where a flag is not given."""
    return {
        ("model", "path"): options.model,
        ("benchmarks",): options.benchmarks
        and [name.strip() for name in options.benchmarks.split(",") if name.strip()],
        ("data",): options.data,
        ("output",): options.output,
        ("num_items",): options.limit,
        ("sampling", "num_samples"): options.samples,
        ("sampling", "temperature"): options.temperature,
        ("sampling", "max_tokens"): options.max_tokens,
        ("judge", "url"): options.judge_url,
        ("judge", "model"): options.judge_model,
    }


def _say(summary: EvaluationSummary) -> list[str]:
    head = f"{'benchmark':<20} {'items':>6} {'score':>6} {'accuracy (95 %)':>21} {'tokens':>7} {'per right':>9} "
    lines = [head + f"{'tokens/s':>8} {'p50 s':>6} {'p95 s':>6}"]
    lines += [_row(scores) for scores in summary.scores]
    for scores in summary.scores:
        lines += _remarks(scores)
    if len(summary.scores) > 1:
        which = "the paper's ten" if summary.average["is_papers"] else f"{len(summary.scores)} (not the paper's ten)"
        lines.append(f"average of {which}: {summary.average['score']:.1f}")
        lines.append(f"all together: {_speed(summary)}")
    return [*lines, f"answers and scores: {summary.folder}"]


def _speed(summary: EvaluationSummary) -> str:
    speed = summary.speed
    if speed.tokens_per_s is None or speed.answers_per_s is None:
        return "nothing was answered"
    per_answer = f"{speed.answers_per_s:.1f} answers and {speed.tokens_per_s:.0f} tokens a second"
    return f"{speed.tokens} tokens in {speed.busy_s:.1f} s, {per_answer}"


def _row(scores: BenchmarkScores) -> str:
    accuracy, speed = (100 * value for value in scores.accuracy), scores.speed
    value, low, high = accuracy
    tokens = None if speed.tokens_per_answer is None else speed.tokens_per_answer.value
    numbers = [
        (tokens, 7, 1),
        (speed.tokens_per_correct, 9, 1),
        (speed.tokens_per_s, 8, 0),
        (speed.latency_p50_s, 6, 2),
        (speed.latency_p95_s, 6, 2),
    ]
    shown = " ".join(
        f"{'-' if number is None else f'{number:.{digits}f}':>{width}}" for number, width, digits in numbers
    )
    interval = f"{value:.1f} ({low:.1f} to {high:.1f})"
    return f"{scores.name:<20} {scores.counts.items:>6} {scores.score:>6.1f} {interval:>21} {shown}"


def _remarks(scores: BenchmarkScores) -> list[str]:
    """What a reader must know of the scores: what could not be scored, and by which name the judge's part went."""
    counts, lines = scores.counts, []
    if counts.empty or counts.truncated:
        lines.append(f"{scores.name}: {counts.empty} empty answers, {counts.truncated} cut off at the longest length")
    if counts.judged or counts.judge_failed:
        lines.append(f"{scores.name}: {counts.judged} answers judged, the judge failed on {counts.judge_failed}")
    for reason, wrong in counts.by_reason.items():
        lines.append(f"{scores.name}: {wrong['items']} items wrong because: {reason} (first: {wrong['first']})")
    return lines
