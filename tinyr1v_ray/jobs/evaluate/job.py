"""A whole evaluation: items read, answers drawn by engines and stored, grades and scores made of what is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyr1v_ray.cluster.calls import first_cause
from tinyr1v_ray.cluster.connection import check_reachable, check_room, connected, nodes
from tinyr1v_ray.cluster.placement import plan_engines
from tinyr1v_ray.cluster.reservation import Reservation
from tinyr1v_ray.cluster.rollout_pool import RolloutPool, start_engines
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.benchmarks.grading import Grader
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark
from tinyr1v_ray.evaluation.benchmarks.judge import JudgeClient
from tinyr1v_ray.evaluation.benchmarks.scores import (
    BenchmarkScores,
    Speed,
    answering_speed,
    average_score,
    benchmark_scores,
)
from tinyr1v_ray.evaluation.benchmarks.stored import (
    ANSWERS,
    ITEMS,
    SCORES,
    StoredAnswer,
    StoredItem,
    benchmark_folder,
    read_answers,
    read_items,
    write_answers,
)
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import JsonLines, to_json
from tinyr1v_ray.jobs.evaluate.folder import (
    check_output,
    holds_evaluation,
    open_output,
    output_folder,
    prepare_folder,
    recorded_config,
)
from tinyr1v_ray.jobs.evaluate.inputs import EvaluationInputs, load_evaluation, named_benchmarks
from tinyr1v_ray.jobs.evaluate.progress import EvaluationProgress
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.telemetry.display import Display
from tinyr1v_ray.types import Prompt


@dataclass(frozen=True)
class EvaluationSummary:
    """The scores of every benchmark in the folder, their average, and the cost of all answers together."""

    folder: Path
    scores: tuple[BenchmarkScores, ...]
    average: dict[str, object]
    speed: Speed


@dataclass(frozen=True)
class _Pending:
    """An item that has no answer yet."""

    benchmark: str
    index: str
    prompt: Prompt


def run_evaluation(config: EvaluateConfig) -> EvaluationSummary:
    """Draw what answers are missing, grade all, write the scores. Raises the errors of `tinyr1v_ray.errors`.

    Started again, a killed evaluation goes on where it was; where no answer is missing, no cluster is started.
    """
    with Display(quiet=not config.progress) as display, ExitStack() as stack:

        def connect() -> None:
            display.line("starting Ray")
            stack.enter_context(connected(config.cluster))

        return asyncio.run(evaluate_model(config, display, connect))


async def evaluate_model(
    config: EvaluateConfig, display: Display, connect: Callable[[], None] = lambda: None
) -> EvaluationSummary:
    """The same on the cluster that this process is connected to; `connect` is called before engines are needed.

    No folder is made before model and benchmarks are found fit.
    """
    benchmarks, output = named_benchmarks(config), output_folder(config)
    judge = _judge(config)  # refused now, not after the answers
    check_output(output)
    if not holds_evaluation(output):  # an evaluation that goes on may need no cluster
        check_reachable(config.cluster)
    progress = EvaluationProgress(display)
    progress.line("reading model and benchmarks")
    inputs = await asyncio.to_thread(load_evaluation, config, benchmarks, output)
    await asyncio.to_thread(open_output, config, inputs.model_folder, benchmarks, output)  # hashes the weights
    with ExitStack() as stack:
        pending, journals = _open_journals(stack, inputs, output, config.sampling.num_samples)
        if pending:
            connect()
            check_room(plan_engines(config.engine), config.cluster)
            await _answer(config, inputs, pending, journals, progress)
    return await asyncio.to_thread(_score, recorded_config(output), output, judge, progress)


def run_rescoring(folder: Path, overrides: Sequence[str] = ()) -> EvaluationSummary:
    """Grade the stored answers of an evaluation again and write the scores; no model and no cluster is needed."""
    output = folder.expanduser().absolute()
    config = recorded_config(output, overrides)
    with Display(quiet=not config.progress) as display:
        return _score(config, output, _judge(config), EvaluationProgress(display))


def _stored(output: Path, benchmark: Benchmark) -> tuple[Benchmark, Path, list[StoredItem], list[StoredAnswer]]:
    """A benchmark with its folder, its items, and its answers in the order of the items."""
    folder = benchmark_folder(output, benchmark.name)
    items = read_items(folder)
    places = {stored.item.index: place for place, stored in enumerate(items)}
    try:
        by_item = sorted(read_answers(folder), key=lambda answer: (places[answer.prompt_id], answer.sample))
        return benchmark, folder, items, by_item
    except KeyError as error:
        raise DataError(
            f"{folder / ANSWERS} has an answer to item {error}, which {ITEMS} lacks; every answer is to a stored item; "
            "restore the folder, or evaluate into a new one"
        ) from error


def _judge(config: EvaluateConfig) -> JudgeClient | None:
    return JudgeClient(config.judge) if config.judge.url else None


def _open_journals(
    stack: ExitStack, inputs: EvaluationInputs, output: Path, num_samples: int
) -> tuple[list[_Pending], dict[str, JsonLines]]:
    """What is still to be answered, and a file for each benchmark that answers are appended to."""
    pending, journals = [], {}
    for name, items in inputs.items.items():
        folder, done = prepare_folder(output, name, items, num_samples)
        journals[name] = JsonLines(folder / ANSWERS)
        stack.callback(journals[name].close)
        prompts = inputs.prompts[name].items()
        pending += [_Pending(name, index, prompt) for index, prompt in prompts if index not in done]
    return pending, journals


async def _answer(
    config: EvaluateConfig,
    inputs: EvaluationInputs,
    pending: Sequence[_Pending],
    journals: dict[str, JsonLines],
    progress: EvaluationProgress,
) -> None:
    """Draw and store the missing answers."""
    placement = plan_engines(config.engine)
    settings = config.engine.engine_settings(config.model, config.sampling.seed)
    reservation = Reservation(placement, nodes())
    pool = start_engines(
        placement.rollout, settings, inputs.model_folder, inputs.max_images, inputs.stop_ids, reservation
    )
    try:
        progress.line("starting vLLM (an engine's first answer takes longer)")
        start = time.monotonic()
        await pool.start()
        await _warm_up(pool, pending[0].prompt)
        progress.line(f"vLLM ready after {time.monotonic() - start:.1f} s")
        with progress.counting("answering", len(pending), "items") as on_done:
            await _draw(config, pool, iter(pending), journals, on_done)
    except BaseExceptionGroup as group:
        raise first_cause(group) from group
    finally:
        pool.kill()
        reservation.release()


async def _warm_up(pool: RolloutPool, prompt: Prompt) -> None:
    """One token from every engine, so that its first answer's extra seconds are in no latency."""
    one_token = Sampling(1, 0.0, 1.0, 1, 0)
    await asyncio.gather(*(pool.sample(prompt, one_token) for _ in range(pool.num_engines)))


async def _draw(
    config: EvaluateConfig,
    pool: RolloutPool,
    pending: Iterator[_Pending],
    journals: dict[str, JsonLines],
    on_done: Callable[[int], None],
) -> None:
    """As many requests at once as the engines write answers at once; each item is stored when it is done."""
    drawn = config.sampling
    sampling = Sampling(drawn.num_samples, drawn.temperature, drawn.top_p, drawn.max_tokens, drawn.seed)
    num_at_once = pool.num_engines * max(1, config.engine.max_num_sequences // drawn.num_samples)

    async def work() -> None:
        for row in pending:
            started_s = time.time()
            group = await pool.sample(row.prompt, sampling)
            journals[row.benchmark].append(
                asdict(
                    StoredAnswer(
                        row.benchmark,
                        row.index,
                        sample,
                        completion.text,
                        completion.num_tokens,
                        str(completion.finish),
                        started_s,
                        time.time(),
                    )
                )
                for sample, completion in enumerate(group.completions)
            )
            on_done(1)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(num_at_once):
            tasks.create_task(work())


def _score(
    config: EvaluateConfig, output: Path, judge: JudgeClient | None, progress: EvaluationProgress
) -> EvaluationSummary:
    """Grades and scores of every benchmark in the folder, from what is stored there alone.

    All of it is read before anything is written: a damaged folder stays as it is.
    """
    scores: list[BenchmarkScores] = []
    everything: list[StoredAnswer] = []
    with Grader(config.judge.num_parallel) as grader:
        for benchmark, folder, items, answers in [_stored(output, each) for each in named_benchmarks(config)]:
            with progress.counting(f"grading {benchmark.name}", len(answers), "answers") as on_done:
                graded = grader.grade(benchmark, items, answers, judge, on_done)
            write_answers(folder, graded)
            everything += graded
            scores.append(benchmark_scores(benchmark, items, graded))
    average, speed = average_score(scores), answering_speed(everything)
    row = {"average": average, "speed": asdict(speed), "benchmarks": {each.name: asdict(each) for each in scores}}
    replace_file(output / SCORES, to_json(row, indent=2) + "\n")
    return EvaluationSummary(output, tuple(scores), average, speed)
