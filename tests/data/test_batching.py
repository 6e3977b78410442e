"""Minibatches and their denominators by hand, and the properties of the micro-batch plan."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyr1v_ray.data.batching import build_train_batch, plan_micro_batches
from tinyr1v_ray.types import (
    Completion,
    Finish,
    ImageRef,
    Prompt,
    RolloutGroup,
    Score,
    ScoredGroup,
    TrainGroup,
    TrainRow,
)


def completion(num_tokens: int, finish: Finish = Finish.STOP) -> Completion:
    return Completion(np.ones(num_tokens, np.int32), np.zeros(num_tokens, np.float32), "", finish, 0, 0)


def scored(name: str, *entries: tuple[int, Finish, str]) -> ScoredGroup:
    completions = tuple(completion(num_tokens, finish) for num_tokens, finish, _ in entries)
    scores = tuple(Score(0.5, failure=failure) for *_, failure in entries)
    return ScoredGroup(RolloutGroup(Prompt(name, "math", "?", "1", (5, 6)), completions), scores)


STOP, LENGTH, ABORT = Finish.STOP, Finish.LENGTH, Finish.ABORT
GROUPS = [
    scored("a", (10, STOP, ""), (20, LENGTH, ""), (30, STOP, "")),
    scored("b", (7, ABORT, ""), (5, STOP, "hung"), (3, STOP, "")),
    scored("c", (1, STOP, ""), (2, STOP, ""), (4, STOP, "")),
    scored("d", (0, STOP, ""), (8, STOP, "x"), (9, ABORT, "")),
]
ADVANTAGES = [[1.0, 0.0, -1.0], [9.0, 9.0, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]


def contents(groups: tuple[TrainGroup, ...]) -> list[tuple[str, list[tuple[int, float]]]]:
    return [(g.prompt.prompt_id, [(row.completion.num_tokens, row.advantage) for row in g.rows]) for g in groups]


def test_rows_without_effect_are_left_out_but_counted() -> None:
    batch = build_train_batch(3, GROUPS, ADVANTAGES, 2, keep_zero_advantages=False)
    first, second = batch.minibatches
    assert batch.step == 3
    assert contents(first.groups) == [("a", [(10, 1.0), (30, -1.0)]), ("b", [(3, 0.5)])]
    assert (first.num_loss_tokens, first.num_loss_rows) == (10 + 20 + 30 + 3, 4)
    assert contents(second.groups) == []
    assert (second.num_loss_tokens, second.num_loss_rows) == (1 + 2 + 4, 3)


def test_a_kl_term_keeps_rows_of_zero_advantage_but_not_unusable_ones() -> None:
    (only,) = build_train_batch(1, GROUPS, ADVANTAGES, 1, keep_zero_advantages=True).minibatches
    assert contents(only.groups) == [
        ("a", [(10, 1.0), (20, 0.0), (30, -1.0)]),
        ("b", [(3, 0.5)]),
        ("c", [(1, 0.0), (2, 0.0), (4, 0.0)]),
    ]
    assert (only.num_loss_tokens, only.num_loss_rows) == (70, 7)


@pytest.mark.parametrize(
    ("groups", "advantages", "num_minibatches", "text"),
    [
        (GROUPS, ADVANTAGES[:3], 1, "3 rows of advantages for 4 groups"),
        (GROUPS, ADVANTAGES, 3, "cannot be divided"),
        (GROUPS[:1], [[1.0, 2.0]], 1, "zip"),
        (GROUPS[:1], [[float("nan"), 0.0, 0.0]], 1, "prompt a is not finite"),
    ],
)
def test_shapes_that_do_not_match_are_refused(
    groups: list[ScoredGroup], advantages: list[list[float]], num_minibatches: int, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        build_train_batch(1, groups, advantages, num_minibatches, keep_zero_advantages=False)


def test_the_advantage_of_an_unusable_row_does_not_matter() -> None:
    advantages = [[float("nan"), float("nan"), 0.5]]
    (only,) = build_train_batch(1, [GROUPS[1]], advantages, 1, keep_zero_advantages=False).minibatches
    assert contents(only.groups) == [("b", [(3, 0.5)])]


def train_group(num_tokens: int) -> TrainGroup:
    """A group of that many tokens: a prompt of one and a completion of the rest."""
    return TrainGroup(Prompt("p", "math", "?", "1", (5,)), (TrainRow(completion(num_tokens - 1), 1.0),))


def test_plan_by_hand() -> None:
    """Longest first to the emptiest rank: 9 | 7, then 6 to the second (13), 5 to the first (14), 2 and 1."""
    groups = [train_group(size) for size in (5, 9, 2, 7, 1, 6)]
    assert plan_micro_batches(groups, 2, 10) == [[[1, 4], [0]], [[3, 2], [5]]]


def test_a_group_above_the_budget_is_alone_and_ranks_are_filled_up() -> None:
    groups = [train_group(size) for size in (50, 4, 4, 4)]
    assert plan_micro_batches(groups, 2, 8) == [[[0], []], [[1, 2], [3]]]
    assert plan_micro_batches([], 3, 8) == [[], [], []]
    assert plan_micro_batches([train_group(5)], 2, 8) == [[[0]], [[]]]


def test_images_count_as_the_tokens_they_become() -> None:
    image = ImageRef("x.png", "0", 1, 56, 56, 40)
    prompt = Prompt("p", "math", "?", "1", (5, 9), (image,))
    group = TrainGroup(prompt, (TrainRow(completion(9), 1.0), TrainRow(completion(1), 1.0)))
    assert group.num_tokens == 2 * 41 + 10
    assert plan_micro_batches([group, train_group(8)], 1, 100) == [[[0, 1]]]
    assert plan_micro_batches([group, train_group(9)], 1, 100) == [[[0], [1]]]


@given(st.lists(st.integers(2, 60), max_size=30), st.integers(1, 5), st.integers(1, 80))
def test_every_plan_is_whole_balanced_and_within_budget(sizes: list[int], num_ranks: int, budget: int) -> None:
    groups = [train_group(size) for size in sizes]
    plan = plan_micro_batches(groups, num_ranks, budget)
    assert plan == plan_micro_batches(groups, num_ranks, budget)
    assert sorted(index for rank in plan for micro_batch in rank for index in micro_batch) == list(range(len(sizes)))
    assert len({len(rank) for rank in plan}) == 1
    loads = []
    for rank in plan:
        totals = [sum(sizes[index] for index in micro_batch) for micro_batch in rank]
        assert all(total <= budget or len(batch) == 1 for total, batch in zip(totals, rank, strict=True)), (
            "a budget is exceeded by single groups only"
        )
        assert totals == sorted(totals, reverse=True)
        assert all(a + b > budget for a, b in pairwise(totals) if b), "no two could be one"
        loads.append(sum(totals))
    assert max(loads) - min(loads) <= max(sizes, default=0)


@pytest.mark.parametrize(("num_ranks", "budget"), [(0, 1), (1, 0)])
def test_plans_need_a_rank_and_a_budget(num_ranks: int, budget: int) -> None:
    with pytest.raises(ValueError, match="cannot plan"):
        plan_micro_batches([train_group(5)], num_ranks, budget)
