"""A training's folder as the real loop, recorder, board and checkpoints write it, over machines in memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinyr1v_ray.algorithms.advantages import build_accept, build_advantages
from tinyr1v_ray.checkpoint.manifest import RunState
from tinyr1v_ray.checkpoint.store import CheckpointFolder
from tinyr1v_ray.cluster.devices import OwnDevices
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.evaluation.held_out import HeldOutAnswer, held_out_metrics, write_answers
from tinyr1v_ray.jobs.train.watched import WatchedClock, WatchedRollouts, WatchedScorer
from tinyr1v_ray.loop import train
from tinyr1v_ray.ports import LoopConfig, System
from tinyr1v_ray.telemetry.board import shown
from tinyr1v_ray.telemetry.display import Display
from tinyr1v_ray.telemetry.events import events_kept
from tinyr1v_ray.telemetry.progress import RunProgress
from tinyr1v_ray.telemetry.run_folder import create_run_folder
from tinyr1v_ray.telemetry.sinks import open_recorder
from tinyr1v_ray.types import (
    Completion,
    Finish,
    ImageRef,
    LearnerUpdate,
    Prompt,
    RolloutGroup,
    Score,
    ScoredGroup,
    TrainBatch,
)

NUM_ITEMS = 7
QUESTION = "How many <b>triangles</b>?"
HOSTILE = "<think>3 & 4</think><script>document.title = 'taken over'</script><answer>" + 30 * "x" + "</answer>"


def draw(path: Path) -> ImageRef:
    """A small picture."""
    Image.new("RGB", (56, 28), "teal").save(path)
    content = path.read_bytes()
    return ImageRef(str(path), hashlib.sha256(content).hexdigest(), len(content), 56, 28, 2)


class Machines:
    """Every port but the metrics: engines and scorers that draw at random, and weights that go live at once."""

    def __init__(self, folder: Path, seed: int, stalled: int) -> None:
        self.random, self.version, self.stalled = random.Random(seed), 0, stalled
        self.image = draw(folder.parent / "picture.png")
        self.store = CheckpointFolder(folder / "checkpoints", 2)

    def iterate(self, cursor: int) -> Iterator[Prompt]:
        while True:
            name = f"math-{cursor % NUM_ITEMS}"
            yield Prompt(name, "math", QUESTION, "1", (1,), (self.image,), epoch=cursor // NUM_ITEMS, position=cursor)
            cursor += 1

    async def generate(self, prompt: Prompt) -> RolloutGroup:
        first = self.version
        await asyncio.sleep(3600 if prompt.position == self.stalled else self.random.uniform(0, 0.002))
        return RolloutGroup(prompt, tuple(self._complete(first) for _ in range(4)))

    def _complete(self, first: int) -> Completion:
        length, finish = self.random.randint(1, 40), self.random.choices([*Finish], [8, 2, 1])[0]
        return Completion(
            np.full(length, 7, np.int32), np.zeros(length, np.float32), HOSTILE, finish, first, self.version
        )

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        """Every third group has nothing to compare, and one of six an answer that was not scored in time."""
        kinds = self.random.choice([[1.0], [0.0, 0.1, 1.0], [0.0, 1.0]])
        draws = [self.random.choice(kinds) for _ in group.completions]
        scores = [Score(total, {}, total == 1) for total in draws]
        if self.random.random() < 1 / 6:
            scores[0] = Score(0.0, failure="too slow")
        return ScoredGroup(group, tuple(scores))

    async def update(self, batch: TrainBatch) -> LearnerUpdate:
        await asyncio.sleep(0.001)
        return LearnerUpdate(batch.step, {"loss": 0.5})

    async def publish(self, version: int) -> None:
        self.version = version

    async def evaluate(self, step: int) -> None:
        pass

    async def after_step(self, step: int, cursor: int, state: Mapping[str, float]) -> None:
        with self.store.writing(step) as pending:
            (pending.folder / "weights").write_text(f"of step {step}")
            pending.commit(RunState(step, cursor, {"numpy": np.__version__}, state))


def settings_of(folder: Path, *overrides: str) -> TrainConfig:
    tree = {"run": {"name": folder.name, "folder": str(folder.parent), "num_steps": 6, "num_prompts_per_step": 3}}
    tree["data"] = {"train": ["miniature:math"]}
    return parse_settings(TrainConfig, tree, ["rollout.max_tokens=40", "telemetry.tensorboard=false", *overrides])


def record_run(folder: Path, *overrides: str, seed: int = 0, first_step: int = 1) -> Path:
    """Steps `first_step` to the last; a later `first_step` goes on from the checkpoint before it."""
    asyncio.run(training(folder, *overrides, seed=seed, first_step=first_step))
    _summarise(folder)
    return folder


async def training(folder: Path, *overrides: str, seed: int = 0, first_step: int = 1, stalled: int = -1) -> None:
    """The run itself; group `stalled` is never answered."""
    config = settings_of(folder, *overrides)
    if first_step == 1:
        create_run_folder(folder, config, [])
    machines = Machines(folder, seed, stalled)
    accept = build_accept(config.algorithm, config.run.num_prompts_per_step)
    progress = RunProgress(Display(quiet=True), config.run.num_steps, config.run.num_prompts_per_step)
    board = progress.board
    latest = machines.store.latest()
    state = latest.state if latest and first_step > 1 else RunState(0, 0, {})
    machines.version = state.step
    loop_config = LoopConfig(
        num_steps=config.run.num_steps,
        num_prompts_per_step=config.run.num_prompts_per_step,
        max_staleness=config.run.max_staleness,
        num_minibatches=1,
        keep_zero_advantages=True,
        advantages=build_advantages(config.algorithm, config.rollout.max_tokens),
        accept=lambda group: board.take(group, accept(group)),
        first_step=state.step + 1,
        cursor=state.cursor,
        state=state.advantages,
    )
    recorder = open_recorder(folder, config.telemetry, {}, state.step + 1, [progress])
    watched = WatchedRollouts(machines, board), WatchedScorer(machines, progress)
    system = System(machines, *watched, machines, machines, machines, recorder, machines, OwnDevices())
    with events_kept(folder):
        async with shown(board, folder):
            await train(system, loop_config, WatchedClock(board))
            board.forget_groups()
    recorder.close()


def _summarise(folder: Path) -> None:
    metrics = {}
    for when, share in (("before", 3), ("after", 2)):
        answers = [
            HeldOutAnswer(f"m-{n}", "math", "", "1", "1", n % share == 0, float(n % share == 0), 5 + n, "")
            for n in range(12)
        ]
        write_answers(folder / "evaluation" / f"{when}.jsonl", answers)
        metrics[when] = [asdict(metric) for metric in held_out_metrics(answers)]
    (folder / "summary.json").write_text(json.dumps(metrics))


def edit(path: Path, number: int, **changes: Any) -> None:
    """Change columns of a line."""
    lines = path.read_text().splitlines(keepends=True)
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **changes}) + "\n"
    path.write_text("".join(lines))
