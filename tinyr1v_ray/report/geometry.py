"""How the specialists' task vectors lie to each other, from `merge.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.reading import read_object, read_or_remark, texts
from tinyr1v_ray.report.findings import REFERENCE_MERGE
from tinyr1v_ray.report.recipe import Entry, Recipe


@dataclass(frozen=True)
class Geometry:
    """Cosines of K task vectors, means over `seeds`.

    `weighted_KK` is the mean over tensors of the tensors' cosines, each weighted with the product of the two norms.
    `whole_KK` is the cosine of the task vectors with all tensors in one. `norms_K` are their norms.
    """

    experts: tuple[str, ...]
    seeds: tuple[int, ...]
    num_tensors: int
    weighted_KK: np.ndarray
    whole_KK: np.ndarray
    norms_K: np.ndarray


def read_geometry(recipe: Recipe) -> tuple[Geometry | None, list[str]]:
    """Of one merge a seed (AMM's where it is there: all merges of a seed have the same experts), and what is left out.

    None where no merge has left a sound merge.json.
    """
    reports: dict[int, dict[str, Any]] = {}
    remarks: list[str] = []
    for entry in sorted(recipe.entries, key=lambda entry: entry.algorithm != REFERENCE_MERGE):
        if entry.merge is None or entry.seed in reports:
            continue
        report, said = read_or_remark(partial(_read, entry.merge), f"{entry.name}, seed {entry.seed}: merge.json")
        remarks += said
        if report is not None:
            reports[entry.seed] = report
    seeds = tuple(sorted(reports))
    tables = [cosines(reports[seed]["tensors"]) for seed in seeds]
    sizes = {len(table[2]) for table in tables}
    if len(sizes) != 1 or not tables[0][2].size:
        return None, remarks
    first = reports[seeds[0]]
    names = tuple(_name(path, recipe.entries) for path in first["experts"])
    weighted, whole, norms = (np.mean([table[part] for table in tables], axis=0) for part in range(3))
    num_tensors = sum(bool(row.get("delta_norms")) for row in first["tensors"])
    return Geometry(names, seeds, num_tensors, weighted, whole, norms), remarks


def cosines(tensors: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted mean [K, K], whole [K, K] and norms [K]; a task vector of zero has cosine 0 with every other.

    >>> rows = [{"delta_norms": [3.0, 1.0], "delta_cosines": [[1, 1], [1, 1]]},
    ...         {"delta_norms": [4.0, 0.0], "delta_cosines": [[1, 0], [0, 0]]}]
    >>> weighted, whole, norms = cosines(rows)
    >>> weighted[0, 1].item(), round(whole[0, 1].item(), 6), norms.tolist()
    (1.0, 0.6, [5.0, 1.0])
    """
    rows = [row for row in tensors if row.get("delta_norms")]
    if not rows:
        return np.zeros((0, 0)), np.zeros((0, 0)), np.zeros(0)
    norms_TK = np.array([row["delta_norms"] for row in rows], np.float64)
    cosines_TKK = np.array([row["delta_cosines"] for row in rows], np.float64)
    weights_TKK = norms_TK[:, :, None] * norms_TK[:, None, :]
    products_KK = (weights_TKK * cosines_TKK).sum(axis=0)
    norms_K = np.sqrt((norms_TK**2).sum(axis=0))
    return _ratio(products_KK, weights_TKK.sum(axis=0)), _ratio(products_KK, np.outer(norms_K, norms_K)), norms_K


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)


def _read(path: Path) -> dict[str, Any]:
    report = read_object(path)
    with np.errstate(invalid="ignore", over="ignore"):
        weighted, whole, norms = cosines(report["tensors"])
    num_experts = len(texts(report["experts"], "experts"))
    is_whole = weighted.shape == whole.shape == (len(norms), len(norms)) and len(norms) in (0, num_experts)
    if not is_whole or not all(np.isfinite(table).all() for table in (weighted, whole, norms)):
        raise DataError(f"its tensors are not of {num_experts} experts; a merge writes finite norms; restore it")
    return report


def _name(expert: str, entries: Sequence[Entry]) -> str:
    """The model's name in the recipe, else the end of its path."""
    path = Path(expert).resolve()
    for entry in entries:
        if entry.folder.resolve() == path:
            return entry.name
    return path.parent.name if path.name == "export" else path.name
