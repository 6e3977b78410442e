"""The paper's claims in words, each with what came out here and a verdict that the intervals decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tinyr1v_ray.evaluation.comparison import Difference
from tinyr1v_ray.report.findings import Compared, Findings, domains_of
from tinyr1v_ray.report.outcomes import Outcomes

Verdict = Literal["holds", "opposite", "open", "missing"]

MARGIN_POINTS = 2.0
"""How many points of accuracy shorter answers may cost at most. That two are equal can never be shown; that one is
behind by less than a margin can, by an interval that ends above it."""


@dataclass(frozen=True)
class Claim:
    """`paper` is what the paper reports, `ours` a sentence made of this run's metrics.

    `only_seed` is the seed that the verdict holds for alone, None where several were compared or none.
    """

    text: str
    paper: str
    ours: str
    verdict: Verdict
    only_seed: int | None = None


def claims_of(findings: Findings, outcomes: Outcomes) -> list[Claim]:
    """All claims, those about trainings domain by domain where LIPO and GRPO were both trained."""
    rows = []
    for domain in domains_of(outcomes):
        versus = findings.training(domain, "lipo", "grpo")
        if versus is not None:
            rows.append(_shorter(domain, versus))
            rows.append(_as_accurate(domain, versus, outcomes))
    if not rows:
        rows.append(_missing("LIPO's answers are shorter than GRPO's, at equal or better accuracy"))
    for after, before, sign, text, papers in _MERGE_CLAIMS:
        pair = outcomes.of_paper(after), outcomes.of_paper(before)
        row = findings.merge(pair[0].name, pair[1].name) if pair[0] and pair[1] else None
        rows.append(_missing(text, papers) if row is None else _merge_claim(row, sign, text, papers, outcomes))
    return rows


_MERGE_CLAIMS = (
    ("amm", "base", 1, "AMM's one model is better than the base", "average of ten benchmarks 51.6 against 47.8"),
    ("amm", "wudi", 1, "AMM is better than WUDI merging", "average of ten benchmarks 51.6 against 50.8"),
    ("amm", "task_arithmetic", 1, "AMM is better than task arithmetic", "average 51.6 against 46.7"),
    ("amm", "mixture", 1, "AMM is better than training on the mixture", "OCR-Reasoning 16.2 against 12.8"),
    ("task_arithmetic", "base", -1, "Task arithmetic falls below the base", "average 46.7 against 47.8"),
)
"""The kinds after and before, the paper's sign, the claim, the paper's metrics."""


def describe_accuracy(row: Compared) -> str:
    """`61.0 against 60.2 %: +0.8 points (95 % interval −1.9 to +3.4)`."""
    late, early = (100 * value for value in row.accuracies)
    estimate = row.accuracy.estimate
    return (
        f"{late:.1f} against {early:.1f} %: {signed(100 * estimate.value)} points (95 % interval "
        f"{signed(100 * estimate.low)} to {signed(100 * estimate.high)})"
    )


def describe_tokens(row: Compared) -> str:
    """The same of tokens per answer, with the change in percent."""
    if row.tokens is None:
        return "no tokens were counted"
    late, early = row.token_means
    estimate = row.tokens.estimate
    share = f" or {signed(100 * (late / early - 1), 0)} %" if early else ""
    return (
        f"{late:.1f} against {early:.1f} tokens: {signed(estimate.value)}{share} (95 % interval "
        f"{signed(estimate.low)} to {signed(estimate.high)})"
    )


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, a true minus, and no sign for what rounds to zero.

    >>> signed(1.26), signed(-0.5), signed(-0.01)
    ('+1.3', '−0.5', '0.0')
    """
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def called(difference: Difference, seeds: Sequence[int]) -> str:
    """The closing words of a sentence about a difference over these seeds."""
    return f"{_verb(difference, seeds)} (adjusted p {p_text(difference.adjusted)})"


def p_text(p_value: float) -> str:
    """A p-value as text; below 0.001 only that it is.

    >>> p_text(0.0213), p_text(0.00002), p_text(1.0)
    ('0.021', 'below 0.001', '1')
    """
    if p_value < 0.001:
        return "below 0.001"
    return f"{p_value:.3f}".rstrip("0").rstrip(".")


def _shorter(domain: str, row: Compared) -> Claim:
    text = f"On {domain}, LIPO's answers are shorter than GRPO's"
    ours = f"{describe_tokens(row)}; {called(row.tokens, row.seeds)}." if row.tokens else "No tokens were counted."
    verdict = _verdict(row.tokens, -1) if row.tokens else "missing"
    papers = "138 to 83 tokens on MathVista, about 440 to 115 on MathVision"
    return Claim(text, papers, ours, verdict, _only_seed(row))


def _as_accurate(domain: str, row: Compared, outcomes: Outcomes) -> Claim:
    """It holds where the interval ends above minus the margin; only a loss that is called one speaks against it."""
    low_points, margin = 100 * row.accuracy.estimate.low, f"{MARGIN_POINTS:g} points"
    is_within = low_points > -MARGIN_POINTS
    reach = f"the interval {'stays within' if is_within else 'reaches beyond'} a loss of {margin}"
    verdict: Verdict = "holds" if is_within else "opposite" if row.accuracy.sign < 0 else "open"
    ours = f"{_what(row, outcomes)}{describe_accuracy(row)}; {reach}; {called(row.accuracy, row.seeds)}."
    papers = "+0.4 points on MathVista, +2.5 on MathVision"
    text = f"On {domain}, LIPO's accuracy is within {margin} of GRPO's or better"
    return Claim(text, papers, ours, verdict, _only_seed(row))


def _merge_claim(row: Compared, sign: int, text: str, papers: str, outcomes: Outcomes) -> Claim:
    ours = f"{_what(row, outcomes)}{describe_accuracy(row)}; {called(row.accuracy, row.seeds)}."
    return Claim(text, papers, ours, _verdict(row.accuracy, sign), _only_seed(row))


def _what(row: Compared, outcomes: Outcomes) -> str:
    """What the metrics are of, where it is not plain."""
    is_other = not set(row.benchmarks).isdisjoint(outcomes.scored_otherwise)
    kind = "plain accuracy, not the official score" if is_other else ""
    if len(row.benchmarks) == 1:
        return f"{kind.capitalize()}: " if kind else ""
    return f"Average of {len(row.benchmarks)} benchmarks{f' ({kind})' if kind else ''} "


def _only_seed(row: Compared) -> int | None:
    return row.seeds[0] if len(row.seeds) == 1 else None


def _missing(text: str, paper: str = "") -> Claim:
    return Claim(text, paper, "The models for it are not evaluated in this run.", "missing")


def _verdict(difference: Difference, papers_sign: int) -> Verdict:
    if difference.sign == 0:
        return "open"
    return "holds" if difference.sign == papers_sign else "opposite"


def specialist_sentences(findings: Findings, labels: Mapping[str, str]) -> list[str]:
    """What each training did to the base, and how near AMM comes to each specialist, one sentence each."""
    lines = []
    for row in findings.trainings:
        if row.before.role == "base" and row.tokens is not None:
            late, early = (100 * value for value in row.accuracies)
            lines.append(
                f"{labels[row.after.name]} takes the base from {early:.1f} to {late:.1f} % "
                f"({_verb(row.accuracy, row.seeds)}) and from {row.token_means[1]:.1f} to {row.token_means[0]:.1f} "
                f"tokens per answer ({_verb(row.tokens, row.seeds)})."
            )
    for row in findings.merges:
        if row.before.role == "specialist" and row.accuracies[1] > 0:
            kept = 100 * row.accuracies[0] / row.accuracies[1]
            late, early = (100 * value for value in row.accuracies)
            lines.append(
                f"{labels[row.after.name]} keeps {kept:.0f} % of what {labels[row.before.name]} reaches on its domain: "
                f"{late:.1f} against {early:.1f} % ({_verb(row.accuracy, row.seeds)})."
            )
    return lines


def _verb(difference: Difference, seeds: Sequence[int]) -> str:
    """Of one seed a difference holds for that seed alone: another training may come out otherwise."""
    if not difference.is_called:
        return "no difference can be called"
    return f"a difference for seed {seeds[0]} alone" if len(seeds) == 1 else "a difference"
