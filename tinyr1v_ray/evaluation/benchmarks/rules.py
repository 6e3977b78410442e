"""What is official about a benchmark, as data: which rule, version and prompt are followed, and where grades part."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyr1v_ray.evaluation.benchmarks.item import Benchmark

VERSION = "VLMEvalKit was read as packaged in ms-vlmeval 0.0.20, repositories at the commits named."
JUDGED = {
    "none": "none",
    "extract": "where the rules are not sure, a judge extracts the answer, which the rules then grade",
    "compare": "where the rules are not sure, a judge compares the answer with the key",
    "grading_query": "where the rules are not sure, a judge gets the item's own grading query, else compares",
}
_WIDTH = 110


@dataclass(frozen=True)
class OfficialRule:
    """What a benchmark's scores follow and where they part from it.

    `lenient` says what counts here and not there, `strict` what counts there and not here, both without a judge.
    """

    source: str
    metric: str
    prompt: str
    lenient: tuple[str, ...] = ()
    strict: tuple[str, ...] = ()


def described_rules(benchmarks: Iterable[Benchmark]) -> list[str]:
    """Lines for a reader, a block a benchmark; one without an official rule is named by its metric."""
    lines = []
    for benchmark in benchmarks:
        rule = benchmark.rule
        parts = [("files", " or ".join(benchmark.files)), ("judge", JUDGED[benchmark.judge])]
        if rule is None:
            parts.append(("metric", f"{benchmark.metric}; no official rule"))
        else:
            parts += [("source", rule.source), ("metric", rule.metric), ("prompt", rule.prompt)]
            parts += [("more lenient", text) for text in rule.lenient] + [("stricter", text) for text in rule.strict]
        lines.append(benchmark.name)
        for name, text in parts:
            lines += textwrap.wrap(text, _WIDTH, initial_indent=f"  {name:<13} ", subsequent_indent=" " * 16)
    return [*lines, VERSION]
