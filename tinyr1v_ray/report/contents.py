"""Everything the page shows, read and worked out from a recipe's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyr1v_ray.report import tables
from tinyr1v_ray.report.answer_browser import ShownItem, shown_items
from tinyr1v_ray.report.beside import Beside, beside_the_paper
from tinyr1v_ray.report.claims import Claim, claims_of
from tinyr1v_ray.report.dial import DialCase, read_dial
from tinyr1v_ray.report.findings import Findings, domains_of, find
from tinyr1v_ray.report.geometry import Geometry, read_geometry
from tinyr1v_ray.report.group_browser import ShownGroup, shown_groups
from tinyr1v_ray.report.names import labels_of
from tinyr1v_ray.report.outcomes import Outcomes, read_outcomes
from tinyr1v_ray.report.provenance import Provenance, mixed_drawing, read_provenance
from tinyr1v_ray.report.recipe import Recipe, read_recipe
from tinyr1v_ray.report.study import Study, study_of
from tinyr1v_ray.report.trainings import (
    Curve,
    Preference,
    Training,
    curves,
    differing_settings,
    length_preference,
    of_model,
    read_trainings,
)

METRICS = {"length_mean": "response length, tokens", "reward_mean": "reward"}
"""Metrics of `metrics.jsonl` that are drawn over steps."""


@dataclass(frozen=True)
class Contents:
    """What the page shows. Mappings by domain hold only domains that have something."""

    recipe: Recipe
    outcomes: Outcomes
    labels: Mapping[str, str]
    domains: tuple[str, ...]
    findings: Findings
    claims: Sequence[Claim]
    rows: Sequence[tables.ModelRow]
    beside: Beside
    trainings: Sequence[Training]
    curves: Mapping[str, Mapping[str, Sequence[Curve]]]
    preferences: Mapping[str, Preference]
    differing: Mapping[tuple[str, str], Sequence[str]]
    frontiers: Mapping[str, Sequence[tables.FrontierRow]]
    study: Study | None
    geometry: Geometry | None
    dial: Sequence[DialCase]
    difficulty: Sequence[tables.DifficultyTable]
    items: Sequence[ShownItem]
    groups: Sequence[ShownGroup]
    provenance: Provenance
    notes: Sequence[str]


def read_contents(run: Path) -> Contents:
    """Read a finished or unfinished recipe; raises RunFolderError when its index is missing or broken."""
    recipe = read_recipe(run)
    outcomes, (trainings, unread) = read_outcomes(recipe), read_trainings(recipe)
    labels, domains, findings = labels_of(outcomes.models), domains_of(outcomes), find(outcomes)
    (preferences, uncounted), (groups, unshown) = _preferences(trainings), shown_groups(trainings, labels)
    (geometry, unmerged), (provenance, unknown) = read_geometry(recipe), read_provenance(recipe)
    dial, unturned = read_dial(recipe)
    damage = [*unread, *uncounted, *unshown, *unmerged, *unknown, *unturned]
    by_domain = {domain: {metric: curves(trainings, domain, metric) for metric in METRICS} for domain in domains}
    drawn = {domain: found for domain, found in by_domain.items() if any(found.values())}
    lengths = {domain: found["length_mean"] for domain, found in drawn.items()}
    return Contents(
        recipe=recipe,
        outcomes=outcomes,
        labels=labels,
        domains=domains,
        findings=findings,
        claims=claims_of(findings, outcomes),
        rows=tables.model_rows(outcomes),
        beside=beside_the_paper(outcomes, findings, domains, lengths),
        trainings=trainings,
        curves=drawn,
        preferences=preferences,
        differing=_differing(findings, trainings),
        frontiers={domain: tables.frontier_rows(domain, outcomes) for domain in tables.sweep_domains(outcomes)},
        study=study_of(recipe.study, outcomes, recipe.is_finished),
        geometry=geometry,
        dial=dial,
        difficulty=tables.difficulty_tables(outcomes),
        items=shown_items(outcomes, labels),
        groups=groups,
        provenance=provenance,
        notes=[*_notes(recipe, outcomes), *damage, *mixed_drawing(provenance.drawing)],
    )


def _preferences(trainings: Sequence[Training]) -> tuple[dict[str, Preference], list[str]]:
    """By model, over all its seeds; and what is left out."""
    totals: dict[str, Preference] = {}
    remarks: list[str] = []
    for training in trainings:
        (found, left_out), before = length_preference(training), totals.get(training.entry.name, Preference(0, 0, 0))
        remarks += left_out
        totals[training.entry.name] = Preference(
            before.num_shorter + found.num_shorter,
            before.num_longer + found.num_longer,
            before.num_equal + found.num_equal,
        )
    return {name: total for name, total in totals.items() if total.num_pairs}, remarks


def _differing(findings: Findings, trainings: Sequence[Training]) -> dict[tuple[str, str], list[str]]:
    """Settings in which the trainings of a compared pair differ, by the pair's names; only pairs of trainings."""
    found = {}
    for row in findings.trainings:
        first, second = (of_model(trainings, model.name, row.seeds[0]) for model in (row.after, row.before))
        if first is not None and second is not None and first.config and second.config:
            found[row.after.name, row.before.name] = differing_settings(first, second)
    return found


def _notes(recipe: Recipe, outcomes: Outcomes) -> list[str]:
    """What a reader must know is missing, a line each."""
    notes = []
    states = Counter(stage.state for stage in recipe.stages if stage.kind != "report")
    unfinished = {state: number for state, number in states.items() if state != "done"}
    if unfinished:
        said = ", ".join(f"{number} {state}" for state, number in sorted(unfinished.items()))
        total = sum(states.values())
        notes.append(f"The recipe is not finished: of {total} stages {said}; what they will add is not shown yet.")
    if len(recipe.seeds) == 1:
        notes.append(
            "One seed: intervals are over items alone and say nothing about how another training would have come out."
        )
    if domains_of(outcomes) and not tables.sweep_domains(outcomes):
        notes.append("No sweep over boost is evaluated, so there is no accuracy-tokens frontier.")
    return notes + list(outcomes.remarks)
