"""A real training run that is stepped from outside, and the same work done bare, in the same actors.

The run is composed as `tinyr1v train` composes it (`jobs/train/job.py`): inputs, placement, actors, publisher,
recorder with all its sinks, the loop. Only checkpoints are left out: they fall on one step in twenty.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tinyr1v_ray.algorithms.advantages import build_accept, build_advantages
from tinyr1v_ray.cluster.connection import connected
from tinyr1v_ray.cluster.learner_group import LearnerGroup
from tinyr1v_ray.config.base import load_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.jobs.train.components import Components, started
from tinyr1v_ray.jobs.train.inputs import RunInputs, load_inputs
from tinyr1v_ray.loop import train
from tinyr1v_ray.ports import LoopConfig, System, WeightPublisher
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.telemetry.display import Display
from tinyr1v_ray.telemetry.progress import RunProgress
from tinyr1v_ray.telemetry.run_folder import create_run_folder
from tinyr1v_ray.telemetry.sinks import open_recorder
from tinyr1v_ray.telemetry.timing import PhaseClock
from tinyr1v_ray.types import LearnerUpdate, Prompt, ScoredGroup, StepMetrics, TrainBatch
from tinyr1v_ray.weight_sync.cpu_file.transport import FileUpdate

CONFIG = Path(__file__).parents[2] / "configs" / "miniature_ocr_cpu.yaml"


def load_config(folder: Path, overrides: Sequence[str]) -> TrainConfig:
    """The demo's configuration, with the run's folder below `folder` and a folder in memory for its weights."""
    weights = Path(TrainConfig.model_fields["weights"].default.folder) / f"tinyr1v-bench-{os.getpid()}"
    own = [f"run.folder={folder / 'runs'}", f"weights.folder={weights}", "evaluation.num_items=0", "run.num_steps=1000"]
    return load_settings(TrainConfig, CONFIG, [*own, *overrides])


@dataclass(frozen=True)
class Step:
    """A step of the run: what it was asked, what it trained on, what it cost."""

    prompts: tuple[Prompt, ...]
    lengths: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]
    batch: TrainBatch
    seconds: Mapping[str, float]
    accuracy: float

    @property
    def seconds_step(self) -> float:
        """Wall time of the whole step."""
        return self.seconds["step"]


@dataclass(frozen=True)
class BareStep:
    """The same prompts and seeds generated, the same batch trained on, with nothing around it."""

    seconds_generate: float
    seconds_learn: float
    same_tokens_share: float

    @property
    def seconds_step(self) -> float:
        """Sum of both."""
        return self.seconds_generate + self.seconds_learn


class _Learner:
    """Port `Learner` that remembers the batches."""

    def __init__(self, learner: LearnerGroup) -> None:
        self._learner = learner
        self.batches: list[TrainBatch] = []

    async def update(self, batch: TrainBatch) -> LearnerUpdate:
        self.batches.append(batch)
        return await self._learner.update(batch)


class _Publisher:
    """Port `WeightPublisher` that keeps every version's file, under a second name."""

    def __init__(self, publisher: WeightPublisher, weights_folder: Path) -> None:
        self._publisher, self._weights_folder = publisher, weights_folder

    def kept(self, version: int) -> Path:
        return self._weights_folder / f"kept-{version:06d}.safetensors"

    async def publish(self, version: int) -> None:
        await self._publisher.publish(version)
        [live] = self._weights_folder.glob(f"*/version-{version:06d}.safetensors")
        if not self.kept(version).exists():
            os.link(live, self.kept(version))


class _LeftOut:
    async def after_step(self, step: int, cursor: int, state: Mapping[str, float]) -> None:
        """Checkpoints are left out."""

    async def evaluate(self, step: int) -> None:
        """So are held-out items."""


class SteppedRun:
    """A run whose components stand; `advance` makes steps of it, `repeat_bare` does a step's work again."""

    def __init__(self, config: TrainConfig, inputs: RunInputs, components: Components) -> None:
        self.config, self.inputs, self.components = config, inputs, components
        self._learner = _Learner(components.learner)
        self._publisher = _Publisher(components.weights, Path(config.weights.folder))
        self._num_steps = 0
        self._logged: list[tuple[StepMetrics, Sequence[ScoredGroup]]] = []
        self._run_folder = Path(config.run.folder).absolute() / config.run.name

    async def start(self) -> None:
        """Make the base live, as version 0."""
        await self._publisher.publish(0)
        also = (self,)
        settings = self.config.model_dump(mode="json")
        self._recorder = open_recorder(self._run_folder, self.config.telemetry, settings, 1, also)

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """A sink of the recorder: keeps what `advance` returns."""
        self._logged.append((metrics, groups))

    def close(self) -> None:
        """A sink has this; nothing to do."""

    async def advance(self, num_steps: int) -> list[Step]:
        """The next steps, by the package's own loop."""
        run, algorithm = self.config.run, self.config.algorithm
        loop_config = LoopConfig(
            num_steps=self._num_steps + num_steps,
            num_prompts_per_step=run.num_prompts_per_step,
            max_staleness=run.max_staleness,
            num_minibatches=self.config.learner.num_minibatches,
            keep_zero_advantages=algorithm.kl_coefficient > 0,
            advantages=build_advantages(algorithm, self.config.rollout.max_tokens),
            accept=build_accept(algorithm, run.num_prompts_per_step),
            first_step=self._num_steps + 1,
            cursor=self._num_steps * run.num_prompts_per_step,
        )
        system = System(
            self.inputs.train,
            self.components.rollouts,
            self.components.rewards,
            self._learner,
            self._publisher,
            _LeftOut(),
            self._recorder,
            _LeftOut(),
        )
        self._logged, self._learner.batches = [], []
        await train(system, loop_config, PhaseClock())
        self._num_steps += num_steps
        return [
            _as_step(metrics, groups, batch)
            for (metrics, groups), batch in zip(self._logged, self._learner.batches, strict=True)
        ]

    async def repeat_bare(self, steps: Sequence[Step]) -> list[BareStep]:
        """Each step's work again, under the weights it had; the newest weights are live again afterwards."""
        learner = self.components.learner._ranks[0]._actor
        bare = []
        for step in steps:
            version = step.batch.step - 1
            await self.load(version)
            seconds_generate, tokens = await self.generate_bare(step.prompts)
            seconds_learn = await learner.__ray_call__.remote(_train_bare, step.batch, self.config)
            same = float(np.mean([now == then for now, then in zip(tokens, step.tokens, strict=True)]))
            bare.append(BareStep(seconds_generate, seconds_learn, same))
        await self.load(self._num_steps)
        return bare

    async def load(self, version: int) -> None:
        """Make a version live in the engine, which empties its caches."""
        update = FileUpdate(str(self._publisher.kept(version)))
        await self.components.engines.load_weights(version, update, self.config.weights.timeout_s)

    async def generate_bare(self, prompts: Sequence[Prompt]) -> tuple[float, list[tuple[int, ...]]]:
        """Seconds of the engine alone, timed inside its process, and the sampled tokens."""
        engine = self.components.engines._slots[0]._engine._actor
        return await engine.__ray_call__.remote(_generate_bare, list(prompts), self.sampling)

    @property
    def sampling(self) -> Sampling:
        """How the run samples."""
        rollout = self.config.rollout
        return Sampling(
            rollout.num_completions, rollout.temperature, rollout.top_p, rollout.max_tokens, self.config.run.seed
        )


def _as_step(metrics: StepMetrics, groups: Sequence[ScoredGroup], batch: TrainBatch) -> Step:
    completions = [completion for group in groups for completion in group.group.completions]
    return Step(
        prompts=tuple(group.group.prompt for group in groups),
        lengths=tuple(completion.num_tokens for completion in completions),
        tokens=tuple(tuple(completion.token_ids_T.tolist()) for completion in completions),
        batch=batch,
        seconds=metrics.seconds,
        accuracy=metrics.values["accuracy"],
    )


def _generate_bare(actor: Any, prompts: list[Prompt], sampling: Sampling) -> tuple[float, list[tuple[int, ...]]]:
    """Runs in the engine's actor: all prompts admitted at once, no Ray in between."""
    start = time.perf_counter()
    groups = actor._role.generate(prompts, sampling).result()
    seconds = time.perf_counter() - start
    return seconds, [tuple(c.token_ids_T.tolist()) for group in groups for c in group.completions]


def _train_bare(actor: Any, batch: TrainBatch, config: TrainConfig) -> float:
    """Runs in the learner actor: forward, backward, clip and AdamW of plain torch on tensors that lie ready.

    The model is a second copy of the base (what weights hold does not change how long they take).
    """
    import torch

    from tinyr1v_ray.algorithms.policy_loss import policy_loss
    from tinyr1v_ray.data.model_folder import folder_family
    from tinyr1v_ray.learner.policy import PolicyModel
    from tinyr1v_ray.models.loading import load_model

    learner, settings = actor._role, config.learner
    if not hasattr(actor, "bare"):
        family = folder_family(learner._model_folder, config.model.family)
        model = load_model(learner._model_folder, family)
        policy = PolicyModel(model, family, config.rollout.temperature, settings.logprob_chunk_tokens).train()
        actor.bare = policy, torch.optim.AdamW(policy.parameters(), lr=settings.learning_rate, fused=True)
    policy, optimizer = actor.bare
    builder = learner._builder
    prepared = [
        [(builder.inputs(step), step.tokens) for step in builder.build(minibatch, 0, 1)]
        for minibatch in batch.minibatches
    ]
    start = time.perf_counter()
    for steps in prepared:
        if not steps:
            continue
        for inputs, tokens in steps:
            loss, _ = policy_loss(policy(inputs), tokens, config.algorithm)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - start


@asynccontextmanager
async def standing(config: TrainConfig) -> AsyncIterator[SteppedRun]:
    """A run with its actors up and version 0 live; call while connected."""
    weights_folder = Path(config.weights.folder)
    weights_folder.mkdir(mode=0o700)
    inputs = load_inputs(config)
    run_folder = Path(config.run.folder).absolute() / config.run.name
    create_run_folder(run_folder, config, ["benchmark"])
    run = config.run
    with RunProgress(Display(quiet=True), run.num_steps, run.num_prompts_per_step) as progress:
        async with started(config, inputs, run_folder, progress) as components:
            run = SteppedRun(config, inputs, components)
            await run.start()
            yield run


def run_connected(config: TrainConfig, main: Any) -> Any:
    """`main(run)` on a cluster of its own."""

    async def within() -> Any:
        async with standing(config) as run:
            return await main(run)

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        with connected(config.cluster):
            return asyncio.run(within())
    finally:
        shutil.rmtree(config.weights.folder, ignore_errors=True)


def machine_load() -> str:
    """Cores and load average: metrics of a machine that does other work are worth little."""
    return f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """A heading and aligned rows."""
    width = max(len(label) for label, _ in rows)
    print(f"\n{title}")
    for label, text in rows:
        print(f"  {label.ljust(width)}  {text}", flush=True)


def spread(values: Sequence[float], form: str = ".2f", unit: str = " s") -> str:
    """Median, and the range in brackets."""
    return f"{median(values):{form}}{unit} [{min(values):{form}}, {max(values):{form}}]"
