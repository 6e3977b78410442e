"""What the merge of one matrix costs: flops, memory traffic and peak memory, from its shape alone.

Everything here is arithmetic on integers, so that a plan can be made, printed and tested without a weight.
A matrix product of [a, b] by [b, c] counts 2abc flops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinyr1v_ray.config.merge import AmmConfig
from tinyr1v_ray.merging.forms import FormName, is_wide


@dataclass(frozen=True)
class Cost:
    """Flops, and bytes moved by elementwise passes, set-up and steps apart; `peak_bytes` includes the task vectors."""

    setup_flops: int
    step_flops: int
    setup_traffic_bytes: int
    step_traffic_bytes: int
    step_operations: int
    peak_bytes: int
    steps: int

    @property
    def flops(self) -> int:
        return self.setup_flops + self.steps * self.step_flops

    @property
    def traffic_bytes(self) -> int:
        return self.setup_traffic_bytes + self.steps * self.step_traffic_bytes


@dataclass(frozen=True)
class MatrixShape:
    """`ranks_K` holds, per expert with a non-zero delta, its rank where it is a LoRA adapter, else None."""

    rows: int
    columns: int
    ranks_K: tuple[int | None, ...]

    @property
    def numel(self) -> int:
        return self.rows * self.columns

    @property
    def thin(self) -> int:
        """p: rows of the stacked right factors."""
        return sum(self.rows if rank is None else rank for rank in self.ranks_K)


def gram_cost(shape: MatrixShape, config: AmmConfig) -> Cost:
    """Gram form: 2 out in^2 a product, one product a step, two with the penalty.

    Worked example: 2048 x 11008, K = 3, no penalty: 4.96e11 flops a step; 11008 x 2048: 9.2e10.
    """
    num, numel, square = len(shape.ranks_K), shape.numel, shape.columns**2
    item = _item_bytes(config)
    product = 2 * numel * shape.columns
    frozen = is_frozen(config)
    penalised = config.projection != "none"
    per_step = 10 if frozen else 10 + 3 * num + (3 + 2 * num if penalised else 0)
    cubic = product
    if frozen:
        wide = is_wide(shape.rows, shape.columns)
        cubic = 4 * numel * shape.rows if wide else product
        held = (num + 5) * numel + square + (shape.rows**2 if wide else square)
    else:
        held = (2 * num + 5 + penalised) * numel + (num + 1) * square
    return Cost(
        setup_flops=num * (product + cubic),
        step_flops=product * (2 if penalised else 1),
        setup_traffic_bytes=(8 + 6 * num) * numel * item,
        step_traffic_bytes=(per_step * numel + (0 if frozen else (num + 1) * square)) * item,
        step_operations=12 if frozen else 40,
        peak_bytes=held * item,
        steps=config.steps,
    )


def thin_cost(shape: MatrixShape, config: AmmConfig) -> Cost:
    """Thin form: two products with the stacked factors a step, 4 out p in; the penalty adds 2 out p^2."""
    numel, thin = shape.numel, shape.thin
    num, rows = len(shape.ranks_K), shape.rows
    item = _item_bytes(config)
    penalised = config.projection != "none"
    low_rank = sum(2 * rows * rank**2 for rank in shape.ranks_K if rank is not None)
    own = sum((rows if rank is None else rank) ** 2 for rank in shape.ranks_K)
    products = thin**2 if penalised else own
    wide = rows * thin
    lifted = num * wide if penalised else 0
    held = 6 * numel + thin * shape.columns + products + lifted + (6 if penalised else 4) * wide
    return Cost(
        setup_flops=2 * products * shape.columns + 2 * low_rank,
        step_flops=4 * wide * shape.columns + low_rank + ((2 * wide * thin + low_rank) if penalised else 0),
        setup_traffic_bytes=(8 + 2 * num) * numel * item,
        step_traffic_bytes=(9 * numel + (12 if penalised else 7) * wide + 2 * lifted) * item,
        step_operations=20 + 8 * num,
        peak_bytes=held * item,
        steps=config.steps,
    )


def spectral_cost(shape: MatrixShape, config: AmmConfig) -> Cost:
    """One eigen-decomposition of the smaller side: about 9 n^3 flops, counted threefold for its speed."""
    side = min(shape.columns, shape.thin)
    item = _item_bytes(config)
    numel, num = shape.numel, len(shape.ranks_K)
    on_columns = side == shape.columns
    products = 4 * num * numel * shape.columns if on_columns else 2 * shape.thin**2 * shape.columns
    after = 6 * shape.rows * side * (side + shape.columns)
    held = (num + 5) * numel + 4 * side**2 + (0 if on_columns else 3 * shape.rows * side)
    return Cost(27 * side**3 + products + after, 0, (8 + 6 * num) * numel * item, 0, 0, held * item, 0)


def one_pass_cost(flops: int, peak_bytes: int, traffic_bytes: int = 0) -> Cost:
    """Of a method that takes no steps."""
    return Cost(flops, 0, traffic_bytes, 0, 0, peak_bytes, 0)


def iso_c_cost(shape: MatrixShape) -> Cost:
    """One singular value decomposition of the sum, slow for its flops."""
    side, other = sorted((shape.rows, shape.columns))
    return one_pass_cost(40 * other * side**2, 4 * shape.numel * (len(shape.ranks_K) + 4) + 16 * side**2)


def custom_cost(shape: MatrixShape) -> Cost:
    """Unknown: as if it went over its task vectors a few times."""
    num = len(shape.ranks_K)
    return one_pass_cost(10 * num * shape.numel, 4 * shape.numel * (3 * num + 4), 4 * shape.numel * 10 * num)


def choose_form(shape: MatrixShape, config: AmmConfig) -> FormName:
    """The form with fewer flops over the whole merge; ties go to the Gram form."""
    return "thin" if thin_cost(shape, config).flops < gram_cost(shape, config).flops else "gram"


def matrix_cost(shape: MatrixShape, config: AmmConfig, solver: str, form: FormName) -> Cost:
    """The cost of one matrix under AMM or WUDI, with its result, or all inputs once more in double precision."""
    if solver == "spectral":
        cost = spectral_cost(shape, config)
    else:
        cost = gram_cost(shape, config) if form == "gram" else thin_cost(shape, config)
    beside = 1 + len(shape.ranks_K) if config.dtype == "float64" else 1
    return replace(cost, peak_bytes=cost.peak_bytes + 4 * shape.numel * beside)


def is_frozen(config: AmmConfig) -> bool:
    """Whether the weights never change and no penalty needs the single experts."""
    return config.compatibility == "none" and config.projection == "none"


def _item_bytes(config: AmmConfig) -> int:
    return 8 if config.dtype == "float64" else 4
