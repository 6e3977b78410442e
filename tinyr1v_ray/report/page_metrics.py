"""The report's metrics as plain values: the block inside the page that programs read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyr1v_ray.evaluation.comparison import Difference
from tinyr1v_ray.evaluation.statistics import Estimate
from tinyr1v_ray.report.contents import Contents
from tinyr1v_ray.report.dial import DialCase
from tinyr1v_ray.report.findings import Compared
from tinyr1v_ray.report.tables import ModelRow


def metrics_of(contents: Contents) -> dict[str, Any]:
    """Accuracies in [0, 1], official scores on 0-100, tokens per answer; an estimate is [value, low, high]."""
    geometry = contents.geometry
    return {
        "format": "tinyr1v-report/1",
        "name": contents.recipe.name,
        "miniature": contents.recipe.miniature,
        "seeds": list(contents.recipe.seeds),
        "benchmarks": list(contents.outcomes.benchmarks),
        "scored_otherwise": list(contents.outcomes.scored_otherwise),
        "models": {row.model.name: _model(row) for row in contents.rows},
        "comparisons": {
            "trainings": [_compared(row) for row in contents.findings.trainings],
            "merges": [_compared(row) for row in contents.findings.merges],
        },
        "claims": [
            {
                **{"claim": claim.text, "paper": claim.paper, "here": claim.ours, "verdict": claim.verdict},
                "only_seed": claim.only_seed,
            }
            for claim in contents.claims
        ],
        "cosines": None
        if geometry is None
        else {
            "experts": list(geometry.experts),
            "weighted": _matrix(geometry.weighted_KK),
            "whole": _matrix(geometry.whole_KK),
        },
        "dial": [_dial(case) for case in contents.dial],
        "seconds": {stage.id: stage.seconds for stage in contents.recipe.stages},
        "notes": list(contents.notes),
    }


def _model(row: ModelRow) -> dict[str, Any]:
    benchmarks = {}
    for name, outcome in row.model.outcomes.items():
        benchmarks[name] = {
            "accuracy": outcome.accuracy,
            "score": outcome.score,
            "tokens": _finite(outcome.tokens),
            "tokens_per_right_answer": _finite(outcome.tokens_per_right),
            "retention": row.cells[name].retention,
            "num_items": len(outcome.indexes),
            "seeds": list(outcome.seeds),
        }
    return {
        "role": row.model.role,
        "algorithm": row.model.algorithm,
        "domains": list(row.model.domains),
        "boost": row.model.boost,
        "steps": row.model.entries[0].steps,
        "benchmarks": benchmarks,
        "average_accuracy": _estimate(row.accuracy),
        "average_score": row.score,
        "average_tokens": _estimate(row.tokens),
        "retention": row.retention,
    }


def _dial(case: DialCase) -> dict[str, Any]:
    return {
        "case": case.name,
        "planted": case.planted,
        "num_experts": case.num_experts,
        "points": [
            {
                "overlap": point.overlap,
                "cosine": point.cosine,
                "seeds": list(point.seeds),
                "num_items": point.num_items,
                "experts": point.experts,
                "retention": dict(point.retention),
                "amm_minus": {method: _difference(lead) for method, lead in point.lead.items()},
            }
            for point in case.points
        ],
    }


def _compared(row: Compared) -> dict[str, Any]:
    return {
        "after": row.after.name,
        "before": row.before.name,
        "benchmarks": list(row.benchmarks),
        "seeds": list(row.seeds),
        "num_items": row.num_items,
        "accuracy": _difference(row.accuracy),
        "tokens": None if row.tokens is None else _difference(row.tokens),
        "mcnemar_p": list(row.mcnemar),
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "estimate": list(difference.estimate),
        "p": difference.p_value,
        "holm_p": difference.adjusted,
        "is_called": difference.is_called,
    }


def _estimate(estimate: Estimate | None) -> Sequence[float] | None:
    return None if estimate is None else list(estimate)


def _matrix(values: np.ndarray) -> list[list[float]]:
    return [[float(value) for value in row] for row in values]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
