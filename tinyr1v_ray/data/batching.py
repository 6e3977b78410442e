"""From scored groups to what a learner update trains on, and how ranks share the work. Pure: numpy and types only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyr1v_ray.types import Minibatch, ScoredGroup, TrainBatch, TrainGroup, TrainRow


def build_train_batch(
    step: int,
    groups: Sequence[ScoredGroup],
    advantages_PG: Sequence[Sequence[float] | np.ndarray],
    num_minibatches: int,
    keep_zero_advantages: bool,
) -> TrainBatch:
    """Divide the groups of a step, in order, into minibatches that hold only rows with an effect.

    A row is usable when its completion was finished and scored. Usable rows of zero advantage have no policy
    gradient, so they are left out unless `keep_zero_advantages` (a KL term does need them); groups left without
    rows disappear. The denominators count every usable row, left out or not, so that dropping changes no update.

    Raises ValueError when advantages and groups do not match in shape, an advantage of a usable row is not finite,
    or the number of groups is not a multiple of `num_minibatches`.
    """
    if len(groups) != len(advantages_PG):
        raise ValueError(f"{len(advantages_PG)} rows of advantages for {len(groups)} groups")
    if num_minibatches < 1 or len(groups) % num_minibatches:
        raise ValueError(f"{len(groups)} groups cannot be divided into {num_minibatches} equal minibatches")
    size = len(groups) // num_minibatches
    starts = [index * size for index in range(num_minibatches)]
    return TrainBatch(
        step,
        tuple(
            _build_minibatch(groups[start : start + size], advantages_PG[start : start + size], keep_zero_advantages)
            for start in starts
        ),
    )


def _build_minibatch(
    groups: Sequence[ScoredGroup], advantages_PG: Sequence[Sequence[float] | np.ndarray], keep_zero_advantages: bool
) -> Minibatch:
    kept, num_loss_tokens, num_loss_rows = [], 0, 0
    for scored, advantages_G in zip(groups, advantages_PG, strict=True):
        usable_G = scored.usable_G
        num_loss_tokens += int(scored.lengths_G[usable_G].sum())
        num_loss_rows += int(usable_G.sum())
        rows = _effective_rows(scored, advantages_G, keep_zero_advantages)
        if rows:
            kept.append(TrainGroup(scored.group.prompt, rows))
    return Minibatch(tuple(kept), num_loss_tokens, num_loss_rows)


def _effective_rows(
    scored: ScoredGroup, advantages_G: Sequence[float] | np.ndarray, keep_zero_advantages: bool
) -> tuple[TrainRow, ...]:
    rows = []
    for completion, usable, advantage in zip(scored.group.completions, scored.usable_G, advantages_G, strict=True):
        if not usable:
            continue
        if not math.isfinite(advantage):
            raise ValueError(f"advantage {advantage} of prompt {scored.group.prompt.prompt_id} is not finite")
        if advantage != 0.0 or keep_zero_advantages:
            rows.append(TrainRow(completion, float(advantage)))
    return tuple(rows)


def plan_micro_batches(groups: Sequence[TrainGroup], num_ranks: int, token_budget: int) -> list[list[list[int]]]:
    """Which groups each rank computes, and in which micro-batches: [rank][micro-batch] -> indices into `groups`.

    Groups stay whole, since they share their images' encoding. Ranks are balanced by tokens (longest group first, to
    the rank with the least so far); a rank's groups are packed into as few micro-batches of at most `token_budget`
    tokens as first-fit finds, a larger group being alone in one. All ranks get the same number of micro-batches, the
    largest first and empty ones last, because collectives must match. The plan depends on the arguments alone.

    Degenerate: no groups give no micro-batches. Raises ValueError for less than one rank or token.
    """
    if num_ranks < 1 or token_budget < 1:
        raise ValueError(f"cannot plan for {num_ranks} ranks and a budget of {token_budget} tokens")
    tokens = [group.num_tokens for group in groups]
    longest_first = sorted(range(len(groups)), key=lambda index: (-tokens[index], index))
    loads = [0] * num_ranks
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    for index in longest_first:
        rank = loads.index(min(loads))
        loads[rank] += tokens[index]
        shares[rank].append(index)
    packed = [_pack(share, tokens, token_budget) for share in shares]
    num_micro_batches = max(len(micro_batches) for micro_batches in packed)
    return [micro_batches + [[] for _ in range(num_micro_batches - len(micro_batches))] for micro_batches in packed]


def _pack(longest_first: Sequence[int], tokens: Sequence[int], token_budget: int) -> list[list[int]]:
    """First-fit: each group goes into the first micro-batch with room."""
    micro_batches: list[list[int]] = []
    loads: list[int] = []
    for index in longest_first:
        fits = (slot for slot, load in enumerate(loads) if load + tokens[index] <= token_budget)
        slot = next(fits, len(loads))
        if slot == len(loads):
            micro_batches.append([])
            loads.append(0)
        micro_batches[slot].append(index)
        loads[slot] += tokens[index]
    by_size = sorted(range(len(loads)), key=lambda slot: (-loads[slot], slot))
    return [micro_batches[slot] for slot in by_size]
