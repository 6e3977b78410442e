"""The report's tables of models, as plain rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyr1v_ray.evaluation.statistics import Estimate
from tinyr1v_ray.report.findings import (
    average_accuracy,
    average_score,
    average_tokens,
    domains_of,
    home_benchmarks,
    rivals_of,
    specialist_of,
    sweep_of,
)
from tinyr1v_ray.report.outcomes import Model, Outcomes, paired
from tinyr1v_ray.report.paper import domain_of

MOST_CATEGORIES = 12
"""Columns of a table by difficulty; what is left goes to a last one."""
OTHERS = "others"


@dataclass(frozen=True)
class Cell:
    """A model on one benchmark: accuracy in [0, 1], mean tokens of an answer, accuracy over the specialist's."""

    benchmark: str
    accuracy: float
    tokens: float
    retention: float | None


@dataclass(frozen=True)
class ModelRow:
    """One model over all benchmarks; None where it has not answered them all."""

    model: Model
    cells: Mapping[str, Cell]
    accuracy: Estimate | None
    score: float | None
    """Mean of the official scores on 0-100."""
    tokens: Estimate | None
    retention: float | None


@dataclass(frozen=True)
class FrontierRow:
    """A model on one domain's benchmarks."""

    model: Model
    family: str
    accuracy: Estimate
    tokens: Estimate
    tokens_per_right: float
    """What a right answer costs, mean over the benchmarks; NaN where one has none."""


@dataclass(frozen=True)
class DifficultyTable:
    """Accuracy and tokens of the models of one benchmark by its items' category: `cells[model][category]`."""

    benchmark: str
    categories: Mapping[str, int]
    cells: Mapping[str, Mapping[str, tuple[float, float]]]


def model_rows(outcomes: Outcomes) -> list[ModelRow]:
    """Every model that has answered something."""
    return [_model_row(model, outcomes) for model in outcomes.models if model.outcomes]


def _model_row(model: Model, outcomes: Outcomes) -> ModelRow:
    cells = {
        name: Cell(name, outcome.accuracy, outcome.tokens, _retention(model, name, outcomes))
        for name, outcome in model.outcomes.items()
    }
    kept = [cell.retention for cell in cells.values() if cell.retention is not None]
    is_whole = len(cells) == len(outcomes.benchmarks)
    return ModelRow(
        model,
        cells,
        average_accuracy(model, outcomes.benchmarks),
        average_score(model, outcomes.benchmarks),
        average_tokens(model, outcomes.benchmarks),
        float(np.mean(kept)) if kept and is_whole else None,
    )


def _retention(model: Model, name: str, outcomes: Outcomes) -> float | None:
    """Accuracy over the specialist's, of the seeds and items that both have answered."""
    specialist = specialist_of(domain_of(name), outcomes)
    if specialist is None or name not in specialist.outcomes:
        return None
    _, pairs = paired(model, specialist, [name])
    return pairs[0][0].accuracy / pairs[0][1].accuracy if pairs and pairs[0][1].accuracy > 0 else None


def merge_rows(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """Models for all domains, the better average first, then the specialists."""
    whole = [row for row in rows if row.model.is_for_all]
    whole.sort(key=lambda row: -row.accuracy.value if row.accuracy else 1.0)
    return whole + [row for row in rows if row.model.role == "specialist"]


def frontier_rows(domain: str, outcomes: Outcomes) -> list[FrontierRow]:
    """LIPO by boost, then the other algorithms and the base, on the domain's benchmarks."""
    home = home_benchmarks(domain, outcomes)
    base = [model for model in outcomes.models if model.role == "base"]
    rows = []
    for model in [*sweep_of(domain, outcomes), *rivals_of(domain, outcomes), *base]:
        accuracy, tokens = average_accuracy(model, home), average_tokens(model, home)
        if accuracy is not None and tokens is not None:
            family = "base" if model.role == "base" else model.algorithm
            cost = float(np.mean([model.outcomes[name].tokens_per_right for name in home]))
            rows.append(FrontierRow(model, family, accuracy, tokens, cost))
    return rows


def difficulty_tables(outcomes: Outcomes) -> list[DifficultyTable]:
    """One for each benchmark whose items have categories: base, the domain's trainings, models for all domains."""
    tables = []
    for name in outcomes.benchmarks:
        domain = domain_of(name)
        shown = [
            model for model in outcomes.models if name in model.outcomes and (model.is_for_all or model.home == domain)
        ]
        counts = _counts(shown[0].outcomes[name].categories) if shown else {}
        if len(counts) > 1:
            cells = {model.name: _by_category(model, name, counts) for model in shown}
            tables.append(DifficultyTable(name, counts, cells))
    return tables


def _counts(categories: Sequence[str]) -> dict[str, int]:
    """Items by category, in natural order; the rarest beyond MOST_CATEGORIES together."""
    found = {category: categories.count(category) for category in dict.fromkeys(categories)}
    common = sorted(found, key=lambda category: -found[category])[:MOST_CATEGORIES]
    counts = {category: found[category] for category in sorted(common, key=_natural)}
    rest = len(categories) - sum(counts.values())
    return {**counts, OTHERS: rest} if rest else counts


def _natural(text: str) -> list[tuple[int, int, str]]:
    """`2` before `10`."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts if part]


def _by_category(model: Model, name: str, counts: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    outcome = model.outcomes[name]
    found = {}
    for category in counts:
        at_N = np.array(
            [kind == category or (category == OTHERS and kind not in counts) for kind in outcome.categories], bool
        )
        tokens = outcome.tokens_SN[:, at_N]
        asked = tokens[np.isfinite(tokens)]
        if at_N.any():
            accuracy = float(outcome.correct_SN[:, at_N].mean())
            found[category] = (accuracy, float(asked.mean()) if asked.size else float("nan"))
    return found


def sweep_domains(outcomes: Outcomes) -> tuple[str, ...]:
    """Domains with more than one boost."""
    return tuple(
        domain
        for domain in domains_of(outcomes)
        if len({model.boost for model in sweep_of(domain, outcomes) if model.outcomes}) > 1
    )
