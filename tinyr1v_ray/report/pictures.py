"""Which pictures the page has, section by section."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from tinyr1v_ray.report import charts
from tinyr1v_ray.report.chart import Picture
from tinyr1v_ray.report.contents import METRICS, Contents
from tinyr1v_ray.report.findings import REFERENCE_MERGE
from tinyr1v_ray.report.names import ALGORITHM_NAMES
from tinyr1v_ray.report.tables import FrontierRow, merge_rows


def pictures_of(contents: Contents) -> dict[str, list[Picture]]:
    """All pictures, by section."""
    found: dict[str, list[Picture]] = defaultdict(list)
    for domain, by_metric in contents.curves.items():
        found["curves"] += [
            charts.curve_chart(rows, f"{domain}: {METRICS[metric]}", domain)
            for metric, rows in by_metric.items()
            if rows
        ]
    for domain, rows in contents.frontiers.items():
        points = [charts.Point(_point_label(row), row.family, row.tokens, row.accuracy) for row in rows]
        found["frontier"].append(charts.frontier_chart(points, domain))
    amm = contents.outcomes.of_paper(REFERENCE_MERGE)
    averages = [
        (contents.labels[row.model.name], row.accuracy, row.model is amm)
        for row in merge_rows(contents.rows)
        if row.accuracy is not None and row.model.role != "specialist"
    ]
    if averages:
        found["merge"].append(charts.interval_chart(averages, "average accuracy, %"))
    if contents.geometry is not None:
        found["cosines"].append(charts.matrix_chart(contents.geometry.experts, contents.geometry.weighted_KK))
    found["dial"] = [charts.dial_chart(case) for case in contents.dial if case.planted]
    if stages := _stage_seconds(contents):
        found["seconds"].append(charts.seconds_chart(stages, "Seconds by stage"))
    if phases := _phase_seconds(contents):
        found["seconds"].append(charts.seconds_chart(phases, "Seconds of training by phase"))
    return found


def _point_label(row: FrontierRow) -> str:
    """LIPO's points go by their boost."""
    if row.family == "base":
        return "base"
    if row.family == "lipo" and row.model.boost is not None:
        return f"{row.model.boost:g}"
    return ALGORITHM_NAMES.get(row.family, row.family)


def _stage_seconds(contents: Contents) -> dict[str, dict[str, float]]:
    """By kind and name, a part a seed; the evaluations, which are much alike, are one row with their mean."""
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    evaluations: dict[str, list[float]] = defaultdict(list)
    for stage in contents.recipe.stages:
        if not stage.seconds:
            continue
        part = "all seeds" if stage.seed is None else f"seed {stage.seed}"
        if stage.kind == "evaluate":
            evaluations[part].append(stage.seconds)
        else:
            rows[f"{stage.kind} {stage.name}"][part] = stage.seconds
    if evaluations:
        rows["evaluate a model (mean)"] = {part: fmean(seconds) for part, seconds in evaluations.items()}
    return rows


def _phase_seconds(contents: Contents) -> dict[str, dict[str, float]]:
    """By model over its seeds; phases from the longest."""
    rows: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for training in contents.trainings:
        for phase, seconds in training.seconds_by_phase.items():
            rows[contents.labels[training.entry.name]][phase] += seconds
    totals: dict[str, float] = defaultdict(float)
    for row in rows.values():
        for phase, seconds in row.items():
            totals[phase] += seconds
    order = sorted(totals, key=lambda phase: (phase == "other", -totals[phase]))
    return {label: {phase: row.get(phase, 0.0) for phase in order} for label, row in rows.items()}
