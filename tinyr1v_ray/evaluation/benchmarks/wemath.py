"""WeMath: problems of two or three steps with their steps asked one by one.

With S all steps right and M the whole problem right: insufficient knowledge (IK) is neither, inadequate generalisation
(IG) is S without M, complete mastery (CM) is both, rote memorisation (RM) is M without S; the loose variant counts RM
only where every step is wrong. `key` (such as `2steps_1`, `2steps_multi`) and `ID` say what belongs together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tinyr1v_ray.evaluation.benchmarks.choices import LENIENT, STRICT, grade_choice
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.options import with_options
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule

RULE = OfficialRule(
    source="Qiao et al., arXiv 2407.01284; We-Math/We-Math, evaluation/four_dimensional_metrics.py at 89a15bd,"
    " and VLMEvalKit, utils/wemath.py; 525 whole problems",
    metric="the letter by rules; score = (N - IG/2 - RM - IK)/N over the N whole problems, strict. IK, IG and "
    "CM are shares of N, RM is its share of CM + RM",
    prompt="hint, question, options a line each, and a request for the letter; the requirement to show the "
    "thoughts is left out, as in VLMEvalKit's WeMath without COT",
    lenient=(
        *LENIENT,
        "the repository reads only the first letter after the last word Answer",
    ),
    strict=STRICT,
)
_COMPOSITE = "multi"


def group(item: BenchmarkItem) -> str:
    """A composite problem with its steps: `2steps/17`."""
    return f"{item.columns['key'].partition('_')[0]}/{item.columns['ID']}"


def score(items: Sequence[BenchmarkItem], correct: Sequence[bool]) -> dict[str, float]:
    """Strict and loose score, the four shares in percent, and plain accuracies by number of steps.

    A group without a composite problem, or without steps, takes no part in the score; with no whole group it is 0.
    RM is a share of the composite problems that are right; with none, it is 0.
    """
    groups: dict[str, dict[str, bool]] = defaultdict(dict)
    for item, right in zip(items, correct, strict=True):
        groups[group(item)][item.columns["key"].partition("_")[2]] = right
    whole = [answers for answers in groups.values() if _COMPOSITE in answers and len(answers) > 1]
    counts = dict.fromkeys(("IK", "IG", "CM", "RM", "CM_loose", "RM_loose"), 0)
    for answers in whole:
        steps = [right for name, right in answers.items() if name != _COMPOSITE]
        for name in _kinds(steps, answers[_COMPOSITE]):
            counts[name] += 1
    share = {name: 100.0 * count / max(1, len(whole)) for name, count in counts.items()}
    parts = {
        "score": share["CM"] + share["IG"] / 2,
        "score_loose": share["CM_loose"] + share["IG"] / 2,
        **{name: share[name] for name in ("IK", "IG", "CM", "CM_loose")},
        "RM": 100.0 * counts["RM"] / max(1, counts["RM"] + counts["CM"]),
        "RM_loose": 100.0 * counts["RM_loose"] / max(1, counts["RM_loose"] + counts["CM_loose"]),
        "num_composite": float(len(whole)),
    }
    return parts | _accuracies(items, correct)


def _kinds(steps: Sequence[bool], composite: bool) -> tuple[str, ...]:
    if not composite:
        return ("IG",) if all(steps) else ("IK",)
    return "CM" if all(steps) else "RM", "CM_loose" if any(steps) else "RM_loose"


def _accuracies(items: Sequence[BenchmarkItem], correct: Sequence[bool]) -> dict[str, float]:
    """S1: the steps; S2 and S3: composite problems of two and three steps."""
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for item, right in zip(items, correct, strict=True):
        steps, _, part = item.columns["key"].partition("_")
        by_kind[f"S{steps[:1]}" if part == _COMPOSITE else "S1"].append(right)
    return {name: 100.0 * sum(row) / len(row) for name, row in sorted(by_kind.items())}


WEMATH = Benchmark(
    name="wemath",
    files=("WeMath.tsv",),
    prompt=with_options,
    grade=grade_choice,
    columns=("key", "ID", "A", "B"),
    category_column="knowledge concept",
    judge="extract",
    score=score,
    group=group,
    rule=RULE,
)
