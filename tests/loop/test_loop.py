"""The loop over in-memory machines: order, the staleness bound, failures, resuming. Milliseconds, no Ray."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from tinyr1v_ray.algorithms.advantages import build_advantages
from tinyr1v_ray.config.algorithm import AlgorithmSettings
from tinyr1v_ray.errors import RolloutError
from tinyr1v_ray.loop import train
from tinyr1v_ray.ports import LoopConfig, System
from tinyr1v_ray.telemetry.timing import PhaseClock
from tinyr1v_ray.types import (
    Completion,
    Finish,
    LearnerUpdate,
    Prompt,
    RolloutGroup,
    Score,
    ScoredGroup,
    StepAdvantages,
    TrainBatch,
)


@dataclass
class Machines:
    """All ports at once: engines of random latency, weights that go live at once, and a record of everything."""

    fail_at_prompt: int = -1
    flat_prompts: frozenset[int] = frozenset()
    seed: int = 0
    version: int = 0
    trained: list[tuple[int, int, int]] = field(default_factory=list)  # step, prompt number, version it began under
    cursors: list[int] = field(default_factory=list)
    states: list[Mapping[str, float]] = field(default_factory=list)
    advantages: list[list[float]] = field(default_factory=list)
    evaluated: list[tuple[int, int, int]] = field(default_factory=list)  # step, version, groups in flight
    turns: list[tuple[str, int]] = field(default_factory=list)  # what was done, groups in flight
    num_started: int = 0
    most_in_flight: int = 0
    in_flight: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def iterate(self, cursor: int) -> Iterator[Prompt]:
        while True:
            yield Prompt(str(cursor), "math", "?", "1", (1,))
            cursor += 1

    async def generate(self, prompt: Prompt) -> RolloutGroup:
        version = self.version
        self.num_started += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.random.uniform(0, 0.004))
        self.in_flight -= 1
        if int(prompt.prompt_id) == self.fail_at_prompt:
            raise RolloutError("engine died")
        answers = [
            Completion(
                np.full(length, 7, np.int32), np.zeros(length, np.float32), "1", Finish.STOP, version, self.version
            )
            for length in (1, 2 + int(prompt.prompt_id) % 3)
        ]
        return RolloutGroup(prompt, tuple(answers))

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        await asyncio.sleep(self.random.uniform(0, 0.002))
        second = 1.0 if int(group.prompt.prompt_id) in self.flat_prompts else 0.0
        return ScoredGroup(group, (Score(1.0, correct=True), Score(second, correct=second == 1.0)))

    async def update(self, batch: TrainBatch) -> LearnerUpdate:
        self.turns.append(("learn", self.in_flight))
        await asyncio.sleep(0.002)
        for group in batch.minibatches[0].groups:
            first_version = group.rows[0].completion.first_version
            self.trained.append((batch.step, int(group.prompt.prompt_id), first_version))
        return LearnerUpdate(batch.step, {})

    async def publish(self, version: int) -> None:
        self.turns.append(("publish", self.in_flight))
        await asyncio.sleep(0.001)
        self.version = version

    async def to_learner(self) -> None:
        self.turns.append(("to learner", self.in_flight))

    async def to_engines(self) -> None:
        self.turns.append(("to engines", self.in_flight))

    async def evaluate(self, step: int) -> None:
        await asyncio.sleep(0.002)
        self.evaluated.append((step, self.version, self.in_flight))

    async def after_step(self, step: int, cursor: int, state: Mapping[str, float]) -> None:
        self.cursors.append(cursor)
        self.states.append(state)

    def log(
        self, step: int, update: LearnerUpdate, groups: Sequence[ScoredGroup], advantages: StepAdvantages, *_: object
    ) -> None:
        self.advantages += [advantages_G.tolist() for advantages_G in advantages.by_group_PG]


def centred(groups: Sequence[ScoredGroup], state: Mapping[str, float]) -> StepAdvantages:
    """Rewards less the group's mean."""
    advantages_PG = tuple(group.rewards_G - group.rewards_G.mean() for group in groups)
    return StepAdvantages(advantages_PG, advantages_PG)


def run(machines: Machines, **changes: Any) -> Machines:
    config = LoopConfig(
        num_steps=12,
        num_prompts_per_step=4,
        max_staleness=0,
        num_minibatches=1,
        keep_zero_advantages=True,
        advantages=centred,
        accept=lambda group: True,
    )
    system = System(*[machines] * 9)
    asyncio.run(train(system, replace(config, **changes), PhaseClock()))
    return machines


@pytest.mark.parametrize("max_staleness", [0, 1, 2])
def test_the_staleness_bound_is_exact(max_staleness: int) -> None:
    seen = set()
    for seed in range(5):
        machines = run(Machines(seed=seed), max_staleness=max_staleness)
        seen |= {step - 1 - version for step, _, version in machines.trained}
        assert machines.most_in_flight <= (max_staleness + 1) * 4
    assert max(seen) == max_staleness  # reached, and never exceeded


@pytest.mark.parametrize("max_staleness", [0, 1, 2])
def test_every_group_is_trained_once_in_the_order_of_the_data(max_staleness: int) -> None:
    machines = run(Machines(), max_staleness=max_staleness)
    assert [number for _, number, _ in machines.trained] == list(range(48))
    assert machines.cursors == [4 * step for step in range(1, 13)]


def test_on_policy_nothing_is_sampled_that_no_step_trains_on() -> None:
    assert run(Machines()).num_started == 48


def test_a_resumed_loop_goes_on_with_the_next_group() -> None:
    first = run(Machines(), num_steps=5, max_staleness=2)
    second = run(Machines(version=5), num_steps=12, max_staleness=2, first_step=6, cursor=first.cursors[-1])
    whole = run(Machines(), max_staleness=2)
    order = [(step, number) for step, number, _ in first.trained + second.trained]
    assert order == [(step, number) for step, number, _ in whole.trained]


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_controlled_advantage_goes_on_where_the_checkpoint_left_it(max_staleness: int) -> None:
    """beta rises while all answers are right and falls once half of them are; the state travels as JSON, as in a
    manifest."""
    control = {"rate": 0.25, "window": 2, "tolerance": 0.1}
    settings = AlgorithmSettings.model_validate({"name": "quality_first", "quality_first": control})

    def part(version: int, **changes: Any) -> Machines:
        advantages = build_advantages(settings, 96)
        machines = Machines(version=version, flat_prompts=frozenset(range(24)))
        return run(machines, advantages=advantages, max_staleness=max_staleness, **changes)

    whole = part(0)
    assert [state["beta"] for state in whole.states] == [0, 0.25, 0.5, 0.75, 1, 1, 0.5, 0, 0, 0, 0, 0]
    for stop in (1, 3, 7):
        first = part(0, num_steps=stop)
        state = json.loads(json.dumps(first.states[-1]))
        second = part(stop, num_steps=12, first_step=stop + 1, cursor=first.cursors[-1], state=state)
        assert first.states + second.states == whole.states
        assert first.advantages + second.advantages == whole.advantages


def test_rejected_groups_are_replaced_and_counted_by_the_cursor() -> None:
    flat = frozenset({0, 1, 5, 6, 7, 11, 30})
    machines = run(
        Machines(flat_prompts=flat), accept=lambda group: len(set(group.rewards_G.tolist())) > 1, max_staleness=1
    )
    numbers = [number for _, number, _ in machines.trained]
    assert numbers == [number for number in range(48 + len(flat)) if number not in flat]
    assert machines.cursors[-1] == 48 + len(flat)
    assert max(step - 1 - version for step, _, version in machines.trained) <= 1


def test_an_engine_that_fails_ends_the_run_with_its_own_error() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        run(Machines(fail_at_prompt=37))
    assert [str(error) for error in caught.value.exceptions] == ["engine died"]


def test_a_prompt_source_that_ends_fails_the_run_instead_of_hanging() -> None:
    class Short(Machines):
        def iterate(self, cursor: int) -> Iterator[Prompt]:
            yield Prompt("0", "math", "?", "1", (1,))

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(asyncio.wait_for(_train_short(Short()), timeout=5))
    assert "prompt source ended" in str(caught.value.exceptions[0])


async def _train_short(machines: Machines) -> None:
    config = LoopConfig(2, 4, 0, 1, True, centred, lambda group: True)
    await train(System(*[machines] * 9), config, PhaseClock())


def test_a_step_is_evaluated_under_its_own_weights_before_new_sampling_starts() -> None:
    assert run(Machines()).evaluated == [(step, step, 0) for step in range(1, 13)]
    assert [row[:2] for row in run(Machines(), max_staleness=2).evaluated] == [(step, step) for step in range(1, 13)]


@pytest.mark.parametrize("flat_prompts", [frozenset[int](), frozenset({0, 1, 5, 6, 7, 11, 30})])
def test_on_policy_devices_change_hands_while_nothing_is_sampled(flat_prompts: frozenset[int]) -> None:
    """Also where groups were turned away and replaced within the step."""
    machines = run(
        Machines(flat_prompts=flat_prompts), accept=lambda group: len(set(group.rewards_G.tolist())) > 1, num_steps=5
    )
    assert machines.turns == [(name, 0) for name in ("to learner", "learn", "to engines", "publish")] * 5
