"""A study: methods against a reference on every domain, by a rule that stands in the recipe before it runs.

A method is a training a domain. On a domain it is as accurate as the reference where a loss of `margin` or more can be
ruled out: the one-sided p-value is the share of the bootstrap's draws at which accuracy fell by that much, and Holm's
correction is over the domains. It is called level where this holds in every domain, and better where the same test
without a margin does; anything else is open. Nothing is called before every training of the study is evaluated: to look
until a result appears is no test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tinyr1v_ray.evaluation.comparison import LEVEL, crossed_difference
from tinyr1v_ray.evaluation.statistics import Estimate, holm
from tinyr1v_ray.report.findings import Compared, average_accuracy, average_tokens, compare, home_benchmarks
from tinyr1v_ray.report.outcomes import Model, Outcome, Outcomes, paired
from tinyr1v_ray.report.recipe import StudyRow

Called = Literal["reference", "better", "level", "open", "missing"]


@dataclass(frozen=True)
class StudyCell:
    """A method on a domain; `p_level` and `p_better` are one-sided and adjusted, None for the reference itself.

    `area_share` is how much of the area under the domain's frontier would be lost without the method.
    """

    model: Model
    accuracy: Estimate
    tokens: Estimate
    against: Compared | None
    p_level: float | None
    p_better: float | None
    area_share: float


@dataclass(frozen=True)
class StudyMethod:
    """A method and what may be said of it: `cells` by domain, those that are evaluated."""

    name: str
    called: Called
    cells: Mapping[str, StudyCell]


@dataclass(frozen=True)
class Study:
    """All methods; `areas` is in points of accuracy times tokens, by domain."""

    reference: str
    margin: float
    num_seeds: int
    domains: tuple[str, ...]
    methods: tuple[StudyMethod, ...]
    areas: Mapping[str, float]

    @property
    def decides(self) -> bool:
        """One seed says nothing about how another training would come out."""
        return self.num_seeds > 1


def study_of(row: StudyRow | None, outcomes: Outcomes, is_finished: bool) -> Study | None:
    """The study of a recipe that has one; `is_finished` says that all of its stages are done."""
    if row is None:
        return None
    models = {model.name: model for model in outcomes.models if model.outcomes}
    by_method = {
        name: {models[training].home: models[training] for training in trainings if training in models}
        for name, trainings in row.methods.items()
    }
    domains = tuple(dict.fromkeys(domain for found in by_method.values() for domain in found))
    points = {
        domain: {name: _point(found[domain], outcomes) for name, found in by_method.items() if domain in found}
        for domain in domains
    }
    corners = {domain: _corner(points[domain], outcomes, domain) for domain in domains}
    areas = {domain: frontier_area(list(points[domain].values()), corners[domain]) for domain in domains}
    reference = by_method[row.reference]
    methods = []
    for name, found in by_method.items():
        against = {} if name == row.reference else _against(found, reference, row.margin, outcomes)
        cells = {}
        for domain, model in found.items():
            accuracy, tokens = points[domain][name]
            compared, p_level, p_better = against.get(domain, (None, None, None))
            rest = [point for other, point in points[domain].items() if other != name]
            share = 1 - frontier_area(rest, corners[domain]) / areas[domain] if areas[domain] else 0.0
            cells[domain] = StudyCell(model, accuracy, tokens, compared, p_level, p_better, share)
        called = _called(cells, domains) if is_finished else "missing"
        methods.append(StudyMethod(name, "reference" if name == row.reference else called, cells))
    num_seeds = min((len(model.seeds) for found in by_method.values() for model in found.values()), default=0)
    return Study(row.reference, row.margin, num_seeds, domains, tuple(methods), areas)


def _point(model: Model, outcomes: Outcomes) -> tuple[Estimate, Estimate]:
    """Accuracy and tokens on the model's own domain."""
    home = home_benchmarks(model.home, outcomes)
    none = Estimate(float("nan"), float("nan"), float("nan"))
    return average_accuracy(model, home) or none, average_tokens(model, home) or none


def _corner(points: Mapping[str, tuple[Estimate, Estimate]], outcomes: Outcomes, domain: str) -> tuple[float, float]:
    """What the area is measured from: the accuracy of the base and the tokens of the longest method."""
    base = outcomes.of_paper("base")
    accuracy = average_accuracy(base, home_benchmarks(domain, outcomes)) if base else None
    longest = max((tokens.value for _, tokens in points.values()), default=0.0)
    return (accuracy.value if accuracy else 0.0), longest


def frontier_area(points: Sequence[tuple[Estimate, Estimate]], corner: tuple[float, float]) -> float:
    """Area that the points dominate, up to the corner (accuracy, tokens): points of accuracy times tokens.

    >>> at = lambda value: Estimate(value, value, value)
    >>> frontier_area([(at(0.7), at(30.0)), (at(0.6), at(20.0)), (at(0.5), at(35.0))], (0.5, 40.0))
    300.0
    """
    least_accuracy, most_tokens = corner
    stairs: list[tuple[float, float]] = []
    for accuracy, tokens in sorted(points, key=lambda point: point[1].value):
        if tokens.value < most_tokens and accuracy.value > (stairs[-1][0] if stairs else least_accuracy):
            stairs.append((accuracy.value, tokens.value))
    ends = [*(tokens for _, tokens in stairs[1:]), most_tokens]
    steps = zip(stairs, ends, strict=False)
    return round(sum(100 * (accuracy - least_accuracy) * (end - start) for (accuracy, start), end in steps), 6)


def _against(
    found: Mapping[str, Model], reference: Mapping[str, Model], margin: float, outcomes: Outcomes
) -> dict[str, tuple[Compared, float, float]]:
    """By domain the comparison and the two one-sided p-values, adjusted over the domains."""
    rows = {}
    for domain, model in found.items():
        home = home_benchmarks(domain, outcomes)
        compared = compare(model, reference[domain], home) if domain in reference else None
        if compared is not None:
            pairs = paired(model, reference[domain], home)[1]
            rows[domain] = compared, _p_above(pairs, margin), _p_above(pairs, 0.0)
    level, better = holm([row[1] for row in rows.values()]), holm([row[2] for row in rows.values()])
    return {
        domain: (row[0], p_level, p_better)
        for (domain, row), p_level, p_better in zip(rows.items(), level, better, strict=True)
    }


def _p_above(pairs: Sequence[tuple[Outcome, Outcome]], margin: float) -> float:
    """One-sided p-value of "accuracy is not above the reference's less `margin`"."""
    groups = [late.groups for late, _ in pairs]
    shifted = [late.correct_SN + margin for late, _ in pairs]
    tested = crossed_difference([early.correct_SN for _, early in pairs], shifted, groups)
    return tested.p_value / 2 if tested.estimate.value > 0 else 1 - tested.p_value / 2


def _called(cells: Mapping[str, StudyCell], domains: Sequence[str]) -> Called:
    known = [(cell.p_level, cell.p_better) for cell in cells.values()]
    pairs = [(level, better) for level, better in known if level is not None and better is not None]
    if len(pairs) < len(domains):
        return "missing"
    if all(better < LEVEL for _, better in pairs):
        return "better"
    return "level" if all(level < LEVEL for level, _ in pairs) else "open"
