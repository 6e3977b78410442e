"""The comparisons that the report makes, with Holm's correction over each of its two tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from tinyr1v_ray.evaluation.comparison import (
    Difference,
    crossed_difference,
    crossed_mean,
    holm_adjusted,
    mcnemar_by_seed,
)
from tinyr1v_ray.evaluation.statistics import Estimate
from tinyr1v_ray.report.outcomes import Model, Outcome, Outcomes, paired
from tinyr1v_ray.report.paper import domain_of

REFERENCE_MERGE = "amm"
ALGORITHMS = ("lipo", "grpo", "dapo", "dr_grpo")
_Tokens = tuple[list[np.ndarray], list[np.ndarray], list[list[str]]]


@dataclass(frozen=True)
class Compared:
    """One row: `after` minus `before` on shared seeds and items. Accuracies are shares, tokens are per answer.

    `tokens` is None when one of the two was asked nothing. `mcnemar` has a p-value a seed, of first samples.
    """

    after: Model
    before: Model
    benchmarks: tuple[str, ...]
    seeds: tuple[int, ...]
    num_items: int
    accuracies: tuple[float, float]
    accuracy: Difference
    token_means: tuple[float, float]
    tokens: Difference | None
    mcnemar: tuple[float, ...]


@dataclass(frozen=True)
class Findings:
    """The rows of the two tables."""

    trainings: tuple[Compared, ...]
    merges: tuple[Compared, ...]

    def training(self, domain: str, after: str, before: str) -> Compared | None:
        """One algorithm against another on a domain."""
        for row in self.trainings:
            if row.after.home == domain and (row.after.algorithm, row.before.algorithm) == (after, before):
                return row
        return None

    def merge(self, after: str, before: str) -> Compared | None:
        """One model against another, by names."""
        return next((row for row in self.merges if (row.after.name, row.before.name) == (after, before)), None)


def find(outcomes: Outcomes) -> Findings:
    """All comparisons that the finished evaluations allow."""
    return Findings(_with_holm(_training_rows(outcomes)), _with_holm(_merge_rows(outcomes)))


def home_benchmarks(domain: str, outcomes: Outcomes) -> tuple[str, ...]:
    """The benchmarks of a domain, of those that were answered."""
    return tuple(name for name in outcomes.benchmarks if domain_of(name) == domain)


def specialist_of(domain: str, outcomes: Outcomes) -> Model | None:
    """The specialist of a domain, by whatever algorithm, that has answered something."""
    return next((model for model in _at_home(domain, outcomes) if model.role == "specialist"), None)


def lead_of(domain: str, outcomes: Outcomes) -> Model | None:
    """The training of a domain that the others are compared with: LIPO's where there is one, rather a specialist."""
    rows = _at_home(domain, outcomes)
    return min(rows, key=lambda model: (model.algorithm != "lipo", model.role != "specialist"), default=None)


def _at_home(domain: str, outcomes: Outcomes) -> list[Model]:
    return [model for model in outcomes.models if model.home == domain and model.outcomes]


def rivals_of(domain: str, outcomes: Outcomes) -> list[Model]:
    """Trainings of one domain by another algorithm than LIPO."""
    return [model for model in outcomes.models if model.home == domain and model.algorithm != "lipo"]


def sweep_of(domain: str, outcomes: Outcomes) -> list[Model]:
    """LIPO trainings of one domain, the specialist included, by boost."""
    rows = [model for model in outcomes.models if model.home == domain and model.algorithm == "lipo"]
    return sorted((model for model in rows if model.boost is not None), key=lambda model: model.boost or 0.0)


def domains_of(outcomes: Outcomes) -> tuple[str, ...]:
    """Domains that a model is at home in, in the recipe's order."""
    return tuple(dict.fromkeys(model.home for model in outcomes.models if model.home))


def compare(after: Model, before: Model, benchmarks: Sequence[str]) -> Compared | None:
    """None when a model lacks one of the benchmarks, or they share no seed."""
    if not benchmarks or not all(name in model.outcomes for model in (after, before) for name in benchmarks):
        return None
    seeds, pairs = paired(after, before, benchmarks)
    if not seeds:
        return None
    late, early = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    groups = [row.groups for row in late]
    accuracy = crossed_difference([row.correct_SN for row in early], [row.correct_SN for row in late], groups)
    tokens = _asked_by_both(early, late)
    return Compared(
        after,
        before,
        tuple(benchmarks),
        seeds,
        sum(len(row.indexes) for row in late),
        (_mean([row.correct_SN for row in late]), _mean([row.correct_SN for row in early])),
        accuracy,
        (_mean(tokens[1]), _mean(tokens[0])) if tokens else (float("nan"), float("nan")),
        crossed_difference(*tokens) if tokens else None,
        mcnemar_by_seed([row.first_SN for row in early], [row.first_SN for row in late]),
    )


def average_accuracy(model: Model, benchmarks: Sequence[str]) -> Estimate | None:
    """Mean over benchmarks with its interval, over the seeds that have answered them all; None where none has."""
    return _average(_with_shared_seeds(model, benchmarks), "correct_SN")


def average_tokens(model: Model, benchmarks: Sequence[str]) -> Estimate | None:
    """Tokens per answer, mean over benchmarks, with its interval; None as above or where nothing was asked."""
    return _average(_with_shared_seeds(model, benchmarks), "tokens_SN")


def average_score(model: Model, benchmarks: Sequence[str]) -> float | None:
    """Mean of the official scores on 0-100, MME's sum over 28: the paper's average where these are its ten."""
    rows = _with_shared_seeds(model, benchmarks)
    return float(np.mean([row.score for row in rows])) if rows else None


def _with_shared_seeds(model: Model, benchmarks: Sequence[str]) -> list[Outcome]:
    """What the seeds answered that have answered all of the benchmarks; empty where none has."""
    if not all(name in model.outcomes for name in benchmarks):
        return []
    return [row for row, _ in paired(model, model, benchmarks)[1]]


def _average(rows: Sequence[Outcome], part: str) -> Estimate | None:
    asked = [np.isfinite(getattr(row, part)).all(axis=0) for row in rows]
    if not rows or not all(asked_N.any() for asked_N in asked):
        return None
    return crossed_mean(
        [getattr(row, part)[:, asked_N] for row, asked_N in zip(rows, asked, strict=True)],
        [list(compress(row.groups, asked_N)) for row, asked_N in zip(rows, asked, strict=True)],
    )


def _training_rows(outcomes: Outcomes) -> list[Compared]:
    """On each domain its leading training against the other algorithms, the base, and itself with other settings.

    Specialists that another algorithm than the leading one made are compared with the base as well.
    """
    base, rows = outcomes.of_paper("base"), []
    for domain in domains_of(outcomes):
        lead, home = lead_of(domain, outcomes), home_benchmarks(domain, outcomes)
        if lead is None:
            continue
        others = [model for model in _at_home(domain, outcomes) if model is not lead]
        rows += [compare(lead, other, home) for other in others if other.algorithm != lead.algorithm]
        if base is not None:
            experts = [lead, *(model for model in others if model.role == "specialist")]
            rows += [compare(model, base, home) for model in experts]
        alike = sorted((m for m in others if m.algorithm == lead.algorithm), key=lambda model: model.boost or 0.0)
        rows += [compare(lead, other, home) for other in alike]
    return [row for row in rows if row is not None]


def _merge_rows(outcomes: Outcomes) -> list[Compared]:
    """AMM against every other model for all domains, against each specialist at home; task arithmetic against base."""
    amm, rows = outcomes.of_paper(REFERENCE_MERGE), []
    if amm is not None:
        others = [m for m in outcomes.models if m is not amm and m.is_for_all]
        rows += [compare(amm, other, outcomes.benchmarks) for other in others]
        for domain in domains_of(outcomes):
            if specialist := specialist_of(domain, outcomes):
                rows.append(compare(amm, specialist, home_benchmarks(domain, outcomes)))
    base, plain = outcomes.of_paper("base"), outcomes.of_paper("task_arithmetic")
    if base is not None and plain is not None:
        rows.append(compare(plain, base, outcomes.benchmarks))
    return [row for row in rows if row is not None]


def _with_holm(rows: Sequence[Compared]) -> tuple[Compared, ...]:
    """One family: the accuracies and tokens of all rows."""
    adjusted = iter(holm_adjusted([part for row in rows for part in (row.accuracy, row.tokens) if part is not None]))
    return tuple(
        replace(row, accuracy=next(adjusted), tokens=None if row.tokens is None else next(adjusted)) for row in rows
    )


def _asked_by_both(early: Sequence[Outcome], late: Sequence[Outcome]) -> _Tokens | None:
    """Token tables, before and after, of the items that both were asked with every seed; None when there is none."""
    tokens: _Tokens = ([], [], [])
    for one, other in zip(early, late, strict=True):
        finite_N = np.isfinite(one.tokens_SN).all(axis=0) & np.isfinite(other.tokens_SN).all(axis=0)
        if not finite_N.any():
            return None
        tokens[0].append(one.tokens_SN[:, finite_N])
        tokens[1].append(other.tokens_SN[:, finite_N])
        tokens[2].append(list(compress(one.groups, finite_N)))
    return tokens


def _mean(tables: Sequence[np.ndarray]) -> float:
    return float(np.mean([table.mean() for table in tables]))
