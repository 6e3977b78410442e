"""The conflict dial: how much of planted experts' accuracy each way to merge keeps, by their overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.comparison import Difference, crossed_difference, holm_adjusted
from tinyr1v_ray.evaluation.reading import read_object, read_or_remark
from tinyr1v_ray.report.findings import REFERENCE_MERGE
from tinyr1v_ray.report.names import merge_label
from tinyr1v_ray.report.recipe import DONE, Recipe

DIAL, ROWS = "dial.json", "rows.jsonl"
"""A finished point, and what of it is measured while it runs."""
BASE = "base"
Tables = Mapping[tuple[str, str], np.ndarray]
"""(model, domain) -> right answers [S, N]."""


@dataclass(frozen=True)
class DialPoint:
    """One overlap of one case, over `seeds`. Retention is accuracy over the planted expert's own, mean over experts.

    `lead` is AMM's accuracy minus each other method's, mean over domains, on the same seeds and items.
    """

    overlap: float
    cosine: float
    """Measured: mean over pairs of experts and seeds, all tensors in one vector."""
    seeds: tuple[int, ...]
    num_items: int
    experts: float
    """Mean accuracy of the planted experts, each in its domain."""
    retention: Mapping[str, float]
    """By method; `base` is the base's."""
    lead: Mapping[str, Difference]


@dataclass(frozen=True)
class DialCase:
    """One row of the dial; `labels` are of its methods, in the recipe's order, and of the base."""

    name: str
    planted: bool
    """Else the experts are as trained, and there is one point."""
    num_experts: int
    labels: Mapping[str, str]
    points: tuple[DialPoint, ...]

    def verdict(self) -> str:
        """Where AMM is called better or worse than another method, and where there is nothing to keep, in sentences."""
        useless = [f"{point.overlap:g}" for point in self.points if point.retention[BASE] >= 1]
        warning = " The experts are no better than the base" + f" at {', '.join(useless)}" * self.planted + "."
        return self._leads() + warning * bool(useless)

    def _leads(self) -> str:
        said = []
        for word, sign in (("better", 1), ("worse", -1)):
            for method in self.points[0].lead:
                at = [f"{point.overlap:g}" for point in self.points if point.lead[method].sign == sign]
                if at:
                    said.append(f"{word} than {self.labels[method]}" + f" at {', '.join(at)}" * self.planted)
        return (
            f"AMM is {'; '.join(said)}; no other difference is called one." if said else "No difference is called one."
        )


def read_dial(recipe: Recipe) -> tuple[list[DialCase], list[str]]:
    """Every case that has a finished point, and what is left out."""
    by_case: dict[str, dict[float, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    remarks: list[str] = []
    for stage in recipe.stages:
        if stage.kind != "dial" or stage.state != DONE or stage.seed is None:
            continue
        row, said = read_or_remark(partial(_read, recipe.run / stage.folder / DIAL), f"{stage.id}: {DIAL}")
        remarks += said
        if row is not None:
            by_case[row["case"]][row["overlap"]][stage.seed] = row
    return [_case(name, found) for name, found in by_case.items()], remarks


def _read(path: Path) -> dict[str, Any]:
    """A point's table, whole: raises errors of UNREADABLE."""
    row = read_object(path)
    models, domains = [BASE, *dict(row["methods"])], list(row["domains"])
    wanted = {(model, domain) for model in models for domain in domains}
    wanted |= {(f"expert_{number}", domain) for number, domain in enumerate(domains)}
    right = {(each["model"], each["domain"]): [bool(value) for value in each["right"]] for each in row["rows"]}
    if right.keys() != wanted or {len(each) for each in right.values()} != {row["num_items"]}:
        raise DataError(f"not every model has answered {row['num_items']} items; a finished point has; restore it")
    silent = [model for (model, _), each in right.items() if model.startswith("expert_") and not any(each)]
    if silent:
        raise DataError(f"{silent[0]} answers nothing right; nothing of it can be kept; give it less overlap")
    float(row["overlap"]), float(row["cosine"]), str(row["case"])
    return row


def _case(name: str, by_overlap: Mapping[float, Mapping[int, dict[str, Any]]]) -> DialCase:
    points = [_point(overlap, dict(sorted(rows.items()))) for overlap, rows in sorted(by_overlap.items())]
    leads = iter(holm_adjusted([lead for point in points for lead in point.lead.values()]))
    adjusted = tuple(replace(point, lead={method: next(leads) for method in point.lead}) for point in points)
    any_row = next(iter(next(iter(by_overlap.values())).values()))
    labels = {method: merge_label(method, algorithm) for method, algorithm in any_row["methods"].items()}
    return DialCase(name, any_row["planted"] is True, len(any_row["domains"]), {**labels, BASE: "Base"}, adjusted)


def _point(overlap: float, by_seed: Mapping[int, dict[str, Any]]) -> DialPoint:
    rows = list(by_seed.values())
    first = rows[0]
    tables: Tables = {
        (each["model"], each["domain"]): np.array([_right(row, each["model"], each["domain"]) for row in rows])
        for each in first["rows"]
    }
    own_K = [tables[f"expert_{number}", domain].mean() for number, domain in enumerate(first["domains"])]
    methods = [BASE, *first["methods"]]
    retention = {
        method: float(
            np.mean([tables[method, domain].mean() / own for domain, own in zip(first["domains"], own_K, strict=True)])
        )
        for method in methods
    }
    domains = list(dict.fromkeys(first["domains"]))
    lead = {}
    if REFERENCE_MERGE in first["methods"]:
        after = [tables[REFERENCE_MERGE, domain] for domain in domains]
        lead = {
            method: crossed_difference([tables[method, domain] for domain in domains], after)
            for method in methods
            if method != REFERENCE_MERGE
        }
    cosine = float(np.mean([row["cosine"] for row in rows]))
    return DialPoint(overlap, cosine, tuple(by_seed), first["num_items"], float(np.mean(own_K)), retention, lead)


def _right(row: dict[str, Any], model: str, domain: str) -> Sequence[float]:
    return next(each["right"] for each in row["rows"] if (each["model"], each["domain"]) == (model, domain))
