"""AMM's numbers: against the golden file, against autograd, Gram against thin form, and the theory's identities."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tinyr1v_ray.config.merge import WUDI
from tinyr1v_ray.errors import MergeError
from tinyr1v_ray.merging.amm import AmmConfig, MergedLayer, merge_task_vectors
from tinyr1v_ray.merging.costs import MatrixShape, choose_form, gram_cost, thin_cost
from tinyr1v_ray.merging.task_vectors import LowRank

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "merge.json").read_text())


def relative_error(found: Tensor, expected: Tensor) -> float:
    scale = float(expected.norm())
    return float((found - expected).norm()) / (scale or 1.0)


def vectors(num: int, rows: int, columns: int, seed: int = 0, scale: float = 1e-3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return [
        scale * (i + 1) * (torch.randn(rows, columns, generator=generator, dtype=torch.float64) + 0.5 * common)
        for i in range(num)
    ]


def reference(taus: list[Tensor], config: AmmConfig) -> tuple[Tensor, list[float]]:
    """The definition, differentiated by autograd (the penalty twice) and minimised by torch's Adam."""
    taus = [tau for tau in taus if bool(tau.any())]
    num = len(taus)
    norms = torch.stack([tau.norm() for tau in taus])
    alpha = {"norm": norms, "squared_norm": norms**2, "uniform": torch.ones_like(norms)}[config.importance]
    merged = sum(taus) / (num if config.initial == "mean" else 1)
    merged = merged.clone().requires_grad_()
    rate = config.learning_rate
    if config.learning_rate_mode == "relative":
        rate *= math.sqrt(sum(float((tau**2).mean()) for tau in taus) / num)
    optimiser = torch.optim.Adam([merged], lr=rate)
    strength, losses = None, []
    for _ in range(config.steps):
        cosine = torch.stack([(merged * tau).sum() / (merged.norm() * tau.norm()) for tau in taus]).detach()
        beta = {
            "softmax": torch.softmax(cosine / config.temperature, 0),
            "shifted_cosine": (1 + cosine) / 2,
            "none": torch.ones_like(cosine),
        }[config.compatibility]
        weights = num * alpha * beta / (alpha * beta).sum()
        loss = sum(
            weight * ((merged - tau) @ tau.T).pow(2).sum() / tau.pow(2).sum()
            for weight, tau in zip(weights, taus, strict=True)
        )
        losses.append(float(loss.detach()))
        objective = loss
        if config.projection != "none":
            (gradient,) = torch.autograd.grad(loss, merged, create_graph=True)
            penalty = _penalty(gradient, taus, config.projection)
            if strength is None:
                strength = (config.projection_weight * loss / penalty).detach()
            objective = loss + strength * penalty
        optimiser.zero_grad()
        objective.backward()
        optimiser.step()
    return merged.detach(), losses


def _penalty(gradient: Tensor, taus: list[Tensor], projection: str) -> Tensor:
    if projection == "per_expert":
        return sum((gradient - (gradient * tau).sum() / tau.pow(2).sum() * tau).pow(2).sum() for tau in taus)
    basis, _ = torch.linalg.qr(torch.stack([tau.flatten() for tau in taus], 1))
    flat = gradient.flatten()
    return (flat - basis @ (basis.T @ flat)).pow(2).sum()


@pytest.mark.parametrize("form", ["auto", "gram", "thin"])
@pytest.mark.parametrize("number", range(len(GOLDEN["cases"])))
def test_golden(number: int, form: str) -> None:
    case = GOLDEN["cases"][number]
    taus = [torch.tensor(tau, dtype=torch.float64) for tau in case["task_vectors"]]
    layer = merge_task_vectors(taus, AmmConfig(**case["config"], dtype=torch.float64), form=form)
    assert relative_error(layer.task_vector, torch.tensor(case["merged"], dtype=torch.float64)) < 1e-9
    assert layer.losses[0] == pytest.approx(case["loss_first"], rel=1e-9, abs=1e-300)
    assert layer.losses[-1] == pytest.approx(case["loss_last"], rel=1e-9, abs=1e-300)


def test_defaults_are_the_golden_file_s() -> None:
    assert AmmConfig().model_dump(exclude={"dtype"}) == GOLDEN["defaults"]


SWITCHES = list(
    itertools.product(
        ["norm", "squared_norm", "uniform"], ["softmax", "shifted_cosine", "none"], ["per_expert", "span", "none"]
    )
)


@pytest.mark.parametrize(("importance", "compatibility", "projection"), SWITCHES)
def test_every_switch_equals_autograd_in_both_forms(importance: str, compatibility: str, projection: str) -> None:
    taus = vectors(3, 5, 17, seed=3)
    for initial, mode, rate in (("sum", "relative", 0.01), ("mean", "absolute", 1e-4)):
        config = AmmConfig(
            importance=importance, compatibility=compatibility, projection=projection, initial=initial,
            learning_rate=rate, learning_rate_mode=mode, steps=25, temperature=0.3, projection_weight=0.7,
            dtype="float64",
        )  # fmt: skip
        expected, losses = reference(taus, config)
        for form in ("gram", "thin"):
            layer = merge_task_vectors(taus, config, form=form)
            assert relative_error(layer.task_vector, expected) < 1e-8
            assert layer.losses == pytest.approx(losses, rel=1e-8)
            assert sum(layer.weights_path[-1]) == pytest.approx(3)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (7, 1), (33, 8), (4, 40)])
def test_shapes_at_the_edges(rows: int, columns: int) -> None:
    config = AmmConfig(steps=10, dtype="float64")
    taus = vectors(2, rows, columns, seed=5)
    gram, thin = (merge_task_vectors(taus, config, form=form) for form in ("gram", "thin"))
    assert relative_error(gram.task_vector, thin.task_vector) < 1e-7
    if rows * columns > 1:  # in one dimension R is zero up to rounding, which decides autograd's lambda
        assert relative_error(gram.task_vector, reference(taus, config)[0]) < 1e-7


@pytest.mark.parametrize("form", ["gram", "thin"])
def test_float32_is_close_to_float64(form: str) -> None:
    taus = vectors(3, 64, 96, seed=1)
    exact = merge_task_vectors(taus, AmmConfig(dtype="float64"))
    rough = merge_task_vectors([tau.float() for tau in taus], AmmConfig(), form=form)
    assert rough.task_vector.dtype == torch.float32
    assert relative_error(rough.task_vector.double(), exact.task_vector) < 1e-3
    assert rough.losses[-1] == pytest.approx(exact.losses[-1], rel=1e-3)


def test_relative_rate_does_not_care_about_the_deltas_scale() -> None:
    config = AmmConfig(steps=50, dtype="float64")
    large, small = (merge_task_vectors(vectors(3, 6, 8, scale=scale), config).task_vector for scale in (1e-1, 1e-2))
    assert relative_error(10 * small, large) < 1e-3


def test_zero_vectors_are_dropped_and_one_is_kept() -> None:
    tau, zero = vectors(1, 3, 4)[0], torch.zeros(3, 4, dtype=torch.float64)
    config = AmmConfig(dtype="float64", steps=5)
    assert torch.equal(merge_task_vectors([zero, tau, zero], config).task_vector, tau)
    assert not merge_task_vectors([zero, zero], config).task_vector.any()
    pair = vectors(2, 3, 4)
    assert torch.equal(
        merge_task_vectors([pair[0], zero, pair[1]], config).task_vector, merge_task_vectors(pair, config).task_vector
    )


def test_the_inputs_are_not_changed() -> None:
    taus = vectors(2, 4, 4) + vectors(1, 4, 4)
    kept = [tau.clone() for tau in taus]
    stack = torch.stack(taus)
    merge_task_vectors(taus, AmmConfig(dtype="float64", steps=3))
    merge_task_vectors(stack, AmmConfig(dtype="float64", steps=3), form="thin")
    merge_task_vectors(taus[:1], AmmConfig(dtype="float64")).task_vector.zero_()
    assert all(torch.equal(a, b) for a, b in zip(taus, kept, strict=True))
    assert torch.equal(stack, torch.stack(kept))


def test_identical_experts_do_not_break_the_span() -> None:
    tau = vectors(1, 4, 6)[0]
    layer = merge_task_vectors([tau, tau], AmmConfig(projection="span", dtype="float64", steps=20))
    assert torch.isfinite(layer.task_vector).all()
    assert layer.losses[-1] < layer.losses[0]


def test_opposite_experts_start_from_zero() -> None:
    tau = vectors(1, 4, 6)[0]
    layer = merge_task_vectors([tau, -tau], AmmConfig(dtype="float64", steps=5))
    assert torch.isfinite(layer.task_vector).all()
    assert layer.weights_path[0] == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_and_ill_shaped_are_refused(bad: float) -> None:
    tau = vectors(1, 3, 3)[0]
    broken = tau.clone()
    broken[1, 1] = bad
    with pytest.raises(MergeError, match="task vector 1"):
        merge_task_vectors([tau, broken], AmmConfig())
    with pytest.raises(MergeError, match="shapes"):
        merge_task_vectors([tau, tau[:2]], AmmConfig())
    with pytest.raises(MergeError, match="at least one"):
        merge_task_vectors([], AmmConfig())


# low rank


def low_rank(num: int, rows: int, columns: int, rank: int) -> list[LowRank]:
    generator = torch.Generator().manual_seed(7)
    return [
        LowRank(
            1e-2 * torch.randn(rows, rank + i, generator=generator, dtype=torch.float64),
            torch.randn(rank + i, columns, generator=generator, dtype=torch.float64),
        )
        for i in range(num)
    ]


@pytest.mark.parametrize("projection", ["per_expert", "span", "none"])
@pytest.mark.parametrize("mixed", [False, True])
def test_low_rank_equals_its_dense_product(projection: str, mixed: bool) -> None:
    adapters = low_rank(3, 10, 14, 2)
    products = [adapter.dense() for adapter in adapters]
    given = [adapters[0], products[1], adapters[2]] if mixed else adapters
    config = AmmConfig(projection=projection, steps=40, dtype="float64")
    expected = merge_task_vectors(products, config, form="gram")
    for form in ("thin", "gram", "auto"):
        layer = merge_task_vectors(given, config, form=form)
        assert relative_error(layer.task_vector, expected.task_vector) < 1e-8
        assert layer.losses == pytest.approx(expected.losses, rel=1e-8)


def test_low_rank_experts_are_merged_in_thin_form_at_a_fraction_of_the_flops() -> None:
    shape = MatrixShape(11008, 2048, (64, 64, 64))
    assert choose_form(shape, AmmConfig()) == "thin"
    dense = MatrixShape(11008, 2048, (None, None, None))
    assert gram_cost(dense, WUDI).step_flops / thin_cost(shape, WUDI).step_flops > 5


# spectral


def spectral(taus: list[Tensor], flow_time: float, **settings: object) -> MergedLayer:
    config = AmmConfig(projection="none", dtype="float64", **settings)
    return merge_task_vectors(taus, config, solver="spectral", flow_time=flow_time)


@pytest.mark.parametrize(("rows", "columns"), [(9, 6), (2, 20)])
def test_spectral_equals_small_steps_of_gradient_flow(rows: int, columns: int) -> None:
    """Explicit Euler with 20,000 steps, both where C and where Y Y^T is decomposed."""
    taus = vectors(2, rows, columns, seed=2)
    weights = [len(taus) * float(tau.norm()) / sum(float(t.norm()) for t in taus) for tau in taus]
    merged = sum(taus).clone()
    curvature = sum(w * tau.T @ tau / tau.norm() ** 2 for w, tau in zip(weights, taus, strict=True))
    values = torch.linalg.eigvalsh(curvature)
    mean = float(values[values > 1e-12].mean())
    num_steps, flow_time = 20_000, 3.0
    step = flow_time / (2 * mean) / num_steps
    for _ in range(num_steps):
        gradient = sum(
            2 * w * (merged - tau) @ tau.T @ tau / tau.norm() ** 2 for w, tau in zip(weights, taus, strict=True)
        )
        merged = merged - step * gradient
    layer = spectral(taus, flow_time, compatibility="none")
    assert layer.form == "spectral"
    assert relative_error(layer.task_vector, merged) < 1e-3
    assert layer.losses[-1] < layer.losses[0]


def test_spectral_in_low_rank_and_its_limits() -> None:
    adapters = low_rank(2, 12, 16, 2)
    products = [adapter.dense() for adapter in adapters]
    layer = spectral(adapters, 5.0)
    assert relative_error(layer.task_vector, spectral(products, 5.0).task_vector) < 1e-8
    assert relative_error(spectral(products, 1e-9).task_vector, sum(products)) < 1e-7
    # at the end of the flow nothing that Adam could still reach is lower
    adam = merge_task_vectors(products, AmmConfig(projection="none", dtype="float64", steps=2000))
    assert spectral(products, 1e9).losses[-1] <= adam.losses[-1] + 1e-12 * adam.losses[0]


def test_spectral_refuses_the_penalty() -> None:
    with pytest.raises(MergeError, match="no penalty"):
        merge_task_vectors(vectors(2, 3, 3), AmmConfig(), solver="spectral")


# the choice of form


def test_the_form_follows_the_cost_model() -> None:
    three = (None,) * 3
    assert choose_form(MatrixShape(256, 2048, three), WUDI) == "thin"
    assert choose_form(MatrixShape(2048, 2048, three), WUDI) == "gram"
    assert choose_form(MatrixShape(11008, 2048, three), WUDI) == "gram"
    assert choose_form(MatrixShape(2048, 11008, three), WUDI) == "gram"
    assert choose_form(MatrixShape(2048, 11008, (None, None)), WUDI) == "thin"
    # with the penalty the thin form saves its second long product
    assert choose_form(MatrixShape(2048, 11008, three), AmmConfig()) == "thin"


def test_flops_of_the_3b_language_model() -> None:
    """The totals that the cost model of the literature gives for Qwen2.5-VL-3B, K = 3, 300 steps."""
    layer = {(2048, 2048): 2, (256, 2048): 2, (11008, 2048): 2, (2048, 11008): 1}
    ours = published = 0
    for (rows, columns), count in layer.items():
        shape = MatrixShape(rows, columns, (None,) * 3)
        ours += 36 * count * min(gram_cost(shape, WUDI).flops, thin_cost(shape, WUDI).flops)
        published += 36 * count * 300 * 4 * 3 * rows**2 * columns
    assert published == pytest.approx(7.26e16, rel=0.01)
    assert ours == pytest.approx(7.87e15, rel=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("form", ["gram", "thin"])
def test_gpu_equals_cpu(form: str) -> None:
    taus = vectors(3, 24, 40)
    config = AmmConfig(dtype="float64", steps=50)
    here = merge_task_vectors(taus, config, form=form)
    there = merge_task_vectors([tau.cuda() for tau in taus], config, form=form)
    assert relative_error(there.task_vector.cpu(), here.task_vector) < 1e-9
