"""A study's verdicts follow its rule: computed again by hand, from outcomes whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.report_cases import write_recipe
from tinyr1v_ray.evaluation.statistics import Estimate
from tinyr1v_ray.report.outcomes import Model, Outcome, Outcomes
from tinyr1v_ray.report.page import write_report
from tinyr1v_ray.report.recipe import Entry, StudyRow
from tinyr1v_ray.report.study import Study, frontier_area, study_of

DOMAINS = ("math", "ocr")
NUM_ITEMS, NUM_SEEDS = 200, 4


def _outcome(correct_SN: np.ndarray, tokens: float) -> Outcome:
    indexes = tuple(map(str, range(correct_SN.shape[1])))
    tokens_SN = np.full(correct_SN.shape, tokens)
    seeds = tuple(range(len(correct_SN)))
    return Outcome(seeds, indexes, ("",) * len(indexes), indexes, correct_SN, correct_SN > 0.5, tokens_SN, {})


def _model(name: str, domain: str, correct_SN: np.ndarray, tokens: float) -> Model:
    role = "base" if name == "base" else "specialist"
    entry = Entry(name, role, "", (domain,), None, "", 0, Path(), None, None, None)
    benchmarks = [f"miniature:{each}" for each in (DOMAINS if role == "base" else (domain,))]
    outcomes = {benchmark: _outcome(correct_SN, tokens) for benchmark in benchmarks}
    return Model(name, role, "", (domain,), None, (entry,), outcomes)


def _right(num_right: int, num_seeds: int = NUM_SEEDS) -> np.ndarray:
    """The first `num_right` items right with every seed."""
    return np.tile(np.arange(NUM_ITEMS) < num_right, (num_seeds, 1)).astype(float)


def _study(
    methods: Mapping[str, Mapping[str, np.ndarray]],
    tokens: Mapping[str, float],
    margin: float,
    is_finished: bool = True,
) -> Study:
    models = [_model("base", "", _right(60), 50.0)]
    for name, by_domain in methods.items():
        models += [_model(f"{name}_{domain}", domain, table, tokens[name]) for domain, table in by_domain.items()]
    outcomes = Outcomes(tuple(models), tuple(f"miniature:{domain}" for domain in DOMAINS), (), ())
    row = StudyRow(
        reference="grpo",
        margin=margin,
        methods={name: [f"{name}_{domain}" for domain in DOMAINS] for name in methods},
    )
    study = study_of(row, outcomes, is_finished)
    assert study is not None
    return study


def _all(table: np.ndarray) -> dict[str, np.ndarray]:
    return dict.fromkeys(DOMAINS, table)


def test_what_may_be_said_of_a_method_follows_the_rule() -> None:
    grpo = _right(100)
    methods = {
        "grpo": _all(grpo),
        "same": _all(grpo),
        "better": _all(_right(140)),
        "better_in_one": {"math": _right(140), "ocr": grpo},
        "worse_in_one": {"math": _right(140), "ocr": _right(96)},
        "one_domain": {"math": _right(140)},
    }
    study = _study(methods, dict.fromkeys(methods, 30.0), margin=0.01)
    assert {method.name: method.called for method in study.methods} == {
        "grpo": "reference",
        "same": "level",
        "better": "better",
        "better_in_one": "level",
        "worse_in_one": "open",
        "one_domain": "missing",
    }
    assert study.decides and study.domains == DOMAINS


def test_nothing_is_called_before_the_study_is_finished() -> None:
    methods = {"grpo": _all(_right(100)), "better": _all(_right(140))}
    reference, better = _study(methods, dict.fromkeys(methods, 30.0), margin=0.01, is_finished=False).methods
    assert (reference.called, better.called) == ("reference", "missing") and better.cells


def test_a_loss_within_the_margin_is_level_only_where_the_margin_allows() -> None:
    methods = {"grpo": _all(_right(100)), "less": _all(_right(98))}  # one point less
    called = {
        margin: _study(methods, {"grpo": 40.0, "less": 20.0}, margin).methods[1].called for margin in (0.01, 0.05)
    }
    assert called == {0.01: "open", 0.05: "level"}


def test_p_values_are_those_of_the_bootstrap_and_holms_correction() -> None:
    """Seeds and items drawn anew by hand; the larger of two p-values stays, the smaller is doubled, in Holm's order."""
    rng = np.random.default_rng(3)
    early, late = ((rng.random((2, NUM_SEEDS, NUM_ITEMS)) < share).astype(float) for share in (0.62, 0.60))
    methods = {"grpo": dict(zip(DOMAINS, early, strict=True)), "other": dict(zip(DOMAINS, late, strict=True))}
    margin = 0.03
    study = _study(methods, {"grpo": 40.0, "other": 20.0}, margin)
    raw = []
    for one, other in zip(early, late, strict=True):
        gaps_SN, num_draws, low = other - one, 4000, 0
        for _ in range(num_draws):
            seeds = rng.integers(NUM_SEEDS, size=NUM_SEEDS)
            items = rng.integers(NUM_ITEMS, size=NUM_ITEMS)
            low += gaps_SN[np.ix_(seeds, items)].mean() <= -margin
        raw.append(low / num_draws)
    small, large = sorted(raw)
    adjusted = {small: min(1.0, 2 * small), large: max(large, min(1.0, 2 * small))}
    for domain, expected in zip(DOMAINS, raw, strict=True):
        assert study.methods[1].cells[domain].p_level == pytest.approx(adjusted[expected], abs=0.05)


def test_one_seed_decides_nothing() -> None:
    table = _right(100, num_seeds=1)
    models = [_model("grpo_math", "math", table, 40.0), _model("new_math", "math", table, 20.0)]
    row = StudyRow(reference="grpo", margin=0.01, methods={"grpo": ["grpo_math"], "new": ["new_math"]})
    study = study_of(row, Outcomes(tuple(models), ("miniature:math",), (), ()), is_finished=True)
    assert study is not None and not study.decides


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=6), st.integers(0, 20), st.integers(0, 20))
def test_the_area_is_the_union_of_what_each_point_dominates(
    points: Sequence[tuple[int, int]], accuracy: int, tokens: int
) -> None:
    """Counted square by square."""
    estimates = [tuple(Estimate(v, v, v) for v in (a / 100, float(t))) for a, t in points]
    squares = {square for a, t in points for square in product(range(accuracy, a), range(t, tokens))}
    assert frontier_area(estimates, (accuracy / 100, float(tokens))) == pytest.approx(len(squares), abs=1e-5)


def test_the_page_shows_the_study(tmp_path: Path) -> None:
    run = write_recipe(tmp_path / "run")
    index = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    index["study"] = {"reference": "grpo", "margin": 0.01, "methods": {"grpo": ["math_grpo"], "lipo": ["math"]}}
    (run / "recipe.json").write_text(json.dumps(index), encoding="utf-8")
    page = write_report(run).path.read_text(encoding="utf-8")
    assert '<section id="study">' in page and '<a href="#study">' in page and "Nothing is called yet" not in page
    index["stages"][0]["state"] = "waiting"
    (run / "recipe.json").write_text(json.dumps(index), encoding="utf-8")
    assert "Nothing is called yet" in write_report(run).path.read_text(encoding="utf-8")
