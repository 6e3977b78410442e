"""The paper's tables with this run's metrics beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyr1v_ray.evaluation.statistics import Estimate
from tinyr1v_ray.report import paper
from tinyr1v_ray.report.findings import (
    REFERENCE_MERGE,
    Compared,
    Findings,
    average_accuracy,
    average_score,
    home_benchmarks,
)
from tinyr1v_ray.report.outcomes import Model, Outcomes
from tinyr1v_ray.report.trainings import Curve


@dataclass(frozen=True)
class MergeLine:
    """One way to one model, by the paper's name for it: the paper's two metrics, and ours on all benchmarks and on OCR.

    `score` and `ocr` are means of official scores, as the paper's are, on 0-100; `accuracy` is the mean of the plain
    accuracies that the tests are about. None where a benchmark is missing.
    """

    kind: str
    model: Model | None
    papers_average: float | None
    papers_ocr: float | None
    score: float | None = None
    accuracy: Estimate | None = None
    ocr: float | None = None


@dataclass(frozen=True)
class CurveLine:
    """Mean response tokens of an algorithm at four points of a training; `steps` are ours."""

    algorithm: str
    papers: tuple[int, ...]
    steps: tuple[int, ...]
    ours: tuple[float, ...]


@dataclass(frozen=True)
class Beside:
    """The four tables; `ten` pairs the paper's score with the AMM model's here, None where it was not evaluated."""

    shortenings: tuple[tuple[str, Compared], ...]
    merges: tuple[MergeLine, ...]
    curves: tuple[CurveLine, ...]
    curve_domain: str
    ocr_benchmarks: tuple[str, ...]
    """Those that our metrics on OCR are of: OCR-Reasoning alone where it is answered, as in the paper."""
    ten: tuple[tuple[str, float, float | None], ...]


def beside_the_paper(
    outcomes: Outcomes, findings: Findings, domains: Sequence[str], lengths: Mapping[str, Sequence[Curve]]
) -> Beside:
    """`lengths` are curves of response lengths by domain; shown are those of the domain that has most whole ones."""
    whole = {domain: [curve for curve in found if curve.is_whole] for domain, found in lengths.items()}
    curve_domain = max(whole, key=lambda domain: len(whole[domain]), default="")
    versus = ((domain, findings.training(domain, "lipo", "grpo")) for domain in domains)
    ocr = _ocr_benchmarks(outcomes)
    amm = outcomes.of_paper(REFERENCE_MERGE)
    ours = {} if amm is None else {name: _official(name, row.score) for name, row in amm.outcomes.items()}
    return Beside(
        tuple((domain, row) for domain, row in versus if row is not None),
        tuple(_merge_line(kind, outcomes, ocr) for kind in ("base", "task_arithmetic", "wudi", "amm", "mixture")),
        tuple(_curve_line(algorithm, whole.get(curve_domain, ())) for algorithm in paper.CURVE_TOKENS),
        curve_domain,
        ocr,
        tuple((name, score, ours.get(name)) for name, score in paper.TEN_SCORES.items()),
    )


def _official(name: str, score: float) -> float:
    """On the paper's scale: MME as its sum of at most 2,800."""
    return score * 28 if name == "mme" else score


def _ocr_benchmarks(outcomes: Outcomes) -> tuple[str, ...]:
    return ("ocr_reasoning",) if "ocr_reasoning" in outcomes.benchmarks else home_benchmarks("ocr", outcomes)


def _merge_line(kind: str, outcomes: Outcomes, ocr_benchmarks: Sequence[str]) -> MergeLine:
    model = outcomes.of_paper(kind)
    papers = paper.AVERAGE_OF_TEN.get(kind), paper.OCR_REASONING.get(kind)
    if model is None:
        return MergeLine(kind, model, *papers)
    score, accuracy = average_score(model, outcomes.benchmarks), average_accuracy(model, outcomes.benchmarks)
    return MergeLine(kind, model, *papers, score, accuracy, average_score(model, ocr_benchmarks))


def _curve_line(algorithm: str, curves: Sequence[Curve]) -> CurveLine:
    curve = next((curve for curve in curves if curve.algorithm == algorithm), None)
    papers = paper.CURVE_TOKENS[algorithm]
    if curve is None:
        return CurveLine(algorithm, papers, (), ())
    places = [_place(curve.steps, step / paper.CURVE_STEPS[-1]) for step in paper.CURVE_STEPS]
    steps, means = (tuple(values[place] for place in places) for values in (curve.steps, curve.mean))
    return CurveLine(algorithm, papers, tuple(int(step) for step in steps), tuple(float(mean) for mean in means))


def _place(steps: np.ndarray, share: float) -> int:
    """Where a share of the training lies, the nearest step; the paper's step 1 is our first."""
    return int(np.argmin(np.abs(steps - max(share * steps[-1], steps[0]))))
