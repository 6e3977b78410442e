"""Weights that leave the learner: gathered by all ranks in one order, whole when handed on, where they are needed."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_ranks import distance, metrics, weights
from torch import nn

from tinyr1v_ray.errors import DeadlineError
from tinyr1v_ray.learner.deadline import run_within
from tinyr1v_ray.learner.full_weights import FullWeights


class PlainNames:
    """The part of a model family that names parameters."""

    def published_name(self, name: str) -> str:
        return name


def test_frozen_weights_are_on_the_device_that_computes() -> None:
    """Their exact values are kept in main memory; the meta device stands for a GPU."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).requires_grad_(False)
    family: Any = PlainNames()
    kept = FullWeights(model, family, zero_stage=2, dtype=torch.bfloat16, is_first=True)
    expected = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.to(torch.bfloat16)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in kept)
    model.to("meta")
    assert {(tensor.device.type, tensor.dtype) for _, tensor in kept} == {("meta", torch.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slow-zero3", "bfloat16-slow-zero3"])
def test_three_ranks_follow_a_slow_sender(ranks: dict[int, Path], name: str) -> None:
    """All ranks gather the same tensors in the same order, and none has one before the first rank asks for it (but for
    the smallest, of which each rank keeps a copy). Later updates are those of ranks that handed nothing on."""
    first, *others = (json.loads((ranks[3] / name / f"times-{rank}.json").read_text()) for rank in range(3))
    sizes = {key: value.size for key, value in weights(ranks[3] / name).items()}
    gathered = {key for key, size in sizes.items() if size > sum(sizes.values()) / 1000}
    assert len(gathered) > 20
    for times in others:
        assert [row[0] for row in times] == [row[0] for row in first] == list(sizes)
        pairs = zip(times, first, strict=True)
        assert all(there >= asked for (key, _, there), (_, asked, _) in pairs if key in gathered)
    straight = ranks[3] / {"slow-zero3": "zero3", "bfloat16-slow-zero3": "bfloat16-plain-zero3"}[name]
    assert distance(weights(ranks[3] / name), weights(straight)) == 0.0
    assert metrics(ranks[3] / name) == metrics(straight)


@pytest.mark.slow
def test_each_rank_says_where_it_stood_when_the_time_was_over(ranks: dict[int, Path]) -> None:
    """The first rank is stuck with a tensor, so the others wait for the gathering of the next one."""
    first, *others = ((ranks[3] / "stuck" / f"rank-{rank}.txt").read_text() for rank in range(3))
    assert first.startswith(
        "learner rank 0 of 3 was at SlowSender, handing on visual.blocks.0.norm2.weight, after 5 s; "
    )
    for rank, text in enumerate(others, 1):
        where = rf"learner rank {rank} of 3 was at SlowSender, gathering visual.blocks.0.attn.qkv.weight, after 5 s"
        assert re.match(where, text), text


def test_work_is_left_alone_when_its_time_is_over() -> None:
    go_on = threading.Event()
    assert run_within(60.0, lambda: 7, AssertionError) == 7
    with pytest.raises(KeyError, match="the work's own"):
        run_within(60.0, lambda: {}["the work's own"], AssertionError)
    with pytest.raises(TimeoutError, match="the work's own"):  # its own time-outs are not ours

        def fail() -> None:
            raise TimeoutError("the work's own")

        run_within(60.0, fail, AssertionError)
    started = time.monotonic()
    with pytest.raises(DeadlineError, match="too long"):
        run_within(0.05, go_on.wait, lambda: DeadlineError("too long"))
    assert time.monotonic() - started < 10.0
    go_on.set()
