"""Metrics of stage 1: step overhead, generation rate, weight publish, time to the first step, peak memory.

`python tests/benchmarks/bench_train.py`; each ratio comes from one run on one machine, alternating what is compared.
Options of the form key=value go to the run's configuration, as with `tinyr1v train`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench_train_llm import PlainLlm, plain_llm
from bench_train_run import (
    CONFIG,
    BareStep,
    Step,
    SteppedRun,
    load_config,
    machine_load,
    print_table,
    run_connected,
    spread,
)

from tinyr1v_ray.types import Prompt

NUM_WARM_STEPS = 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-blocks", type=int, default=5, help="blocks of steps, bare repetitions in between")
    parser.add_argument("--steps-per-block", type=int, default=4)
    parser.add_argument("--num-rounds", type=int, default=7, help="rounds of generation by actor and by plain LLM")
    parser.add_argument("--num-command-steps", type=int, default=8, help="steps of the run through the command")
    parser.add_argument("--only", choices=("command", "steps", "generation"), help="one part alone")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    print(f"stage 1 of the miniature: {machine_load()}")
    with tempfile.TemporaryDirectory(prefix="tinyr1v-bench-") as folder:
        if options.only != "command":
            measure_in_process(Path(folder), options)
        if options.only in (None, "command"):
            measure_command(Path(folder), options.num_command_steps, options.overrides)
    print(f"\nat the end: {machine_load()}")


def measure_in_process(folder: Path, options: argparse.Namespace) -> None:
    """Generation rates, then steps against bare steps, on one set of actors."""
    config = load_config(folder, ["run.name=steps", *options.overrides])

    async def measure(run: SteppedRun) -> None:
        if options.only != "steps":
            await measure_generation(run, options.num_rounds)
        if options.only != "generation":
            await measure_steps(run, options.num_blocks, options.steps_per_block)

    run_connected(config, measure)


async def measure_generation(run: SteppedRun, num_rounds: int) -> None:
    """The same prompts and seeds by the rollout actor, as the loop asks it, and by plain `LLM`s."""
    num_prompts = run.config.run.num_prompts_per_step
    prompts = list(itertools.islice(run.inputs.train.iterate(0), (num_rounds + 1) * num_prompts))
    rounds = [prompts[start : start + num_prompts] for start in range(0, len(prompts), num_prompts)]
    thread_counts = sorted({1, os.cpu_count() or 1})
    rates: dict[str, list[float]] = {}
    same: list[bool] = []
    with ExitStack() as stack:
        plain = {
            f"plain LLM, threads: {count}": stack.enter_context(plain_llm(run.config, run.inputs, count))
            for count in thread_counts
        }
        for llm in plain.values():
            await asyncio.to_thread(llm.wait_ready)
        for number, asked in enumerate(rounds):
            await run.load(0)
            seen, tokens = await _by_the_actor(run, asked)
            found = {"rollout actor": seen} | {name: _by(llm, run, asked, tokens, same) for name, llm in plain.items()}
            for name, rate in found.items():
                rates.setdefault(name, []).extend([rate] if number else [])  # the first round warms up
    rows = [(name, spread(values, ",.0f", " tokens/s")) for name, values in rates.items()]
    for name in plain:
        ratios = [ours / theirs for ours, theirs in zip(rates["rollout actor"], rates[name], strict=True)]
        rows.append((f"actor / {name}", f"{spread(ratios, '.2f', '')}  (target >= 0.8)"))
    rows.append(("same tokens", f"{sum(same) / len(same):.1%} of completions"))
    print_table(f"generation, {num_rounds} rounds of {num_prompts} x {run.config.rollout.num_completions}", rows)


async def _by_the_actor(run: SteppedRun, prompts: Sequence[Prompt]) -> tuple[float, list[tuple[int, ...]]]:
    """Tokens per second, timed in the driver."""
    start = time.perf_counter()
    groups = await asyncio.gather(*(run.components.rollouts.generate(prompt) for prompt in prompts))
    seconds = time.perf_counter() - start
    tokens = [tuple(c.token_ids_T.tolist()) for group in groups for c in group.completions]
    return sum(map(len, tokens)) / seconds, tokens


def _by(
    llm: PlainLlm, run: SteppedRun, prompts: Sequence[Prompt], tokens: list[tuple[int, ...]], same: list[bool]
) -> float:
    seconds, own_tokens = llm.generate(prompts, run.sampling)
    same += [mine == theirs for mine, theirs in zip(tokens, own_tokens, strict=True)]
    return sum(map(len, own_tokens)) / seconds


async def measure_steps(run: SteppedRun, num_blocks: int, steps_per_block: int) -> None:
    """Blocks of real steps, each followed by the same work done bare."""
    await run.repeat_bare(await run.advance(NUM_WARM_STEPS))
    steps: list[Step] = []
    bare: list[BareStep] = []
    for _ in range(num_blocks):
        block = await run.advance(steps_per_block)
        steps += block
        bare += await run.repeat_bare(block)
    print_table(f"synchronous steps, {len(steps)}, each done again bare", _overhead_rows(steps, bare))


def _overhead_rows(steps: Sequence[Step], bare: Sequence[BareStep]) -> list[tuple[str, str]]:
    ratios = [step.seconds_step / alone.seconds_step for step, alone in zip(steps, bare, strict=True)]
    shares = [step.seconds["publish"] / step.seconds_step for step in steps]
    others = [
        step.seconds_step - sum(step.seconds[name] for name in ("generate", "learn", "publish")) for step in steps
    ]
    num_tokens = [sum(step.lengths) / len(step.lengths) for step in steps]
    return [
        ("step of the run", spread([step.seconds_step for step in steps])),
        ("  generate and score", spread([step.seconds["generate"] for step in steps])),
        ("  learn", spread([step.seconds["learn"] for step in steps])),
        ("  publish and canary", spread([step.seconds["publish"] for step in steps])),
        ("  everything else", spread(others, ".3f")),
        ("bare step", spread([alone.seconds_step for alone in bare])),
        ("  engine's generation", spread([alone.seconds_generate for alone in bare])),
        ("  forward, backward, optimizer", spread([alone.seconds_learn for alone in bare])),
        ("step / bare step", f"{spread(ratios, '.3f', '')}  (target <= 1.10)"),
        (
            "sum of steps / sum of bare steps",
            f"{sum(s.seconds_step for s in steps) / sum(b.seconds_step for b in bare):.3f}",
        ),
        ("publish share of a step", f"{spread(shares, '.1%', '')}  (target <= 5 %)"),
        ("completions the same when done again", f"{sum(b.same_tokens_share for b in bare) / len(bare):.1%}"),
        ("tokens per answer", spread(num_tokens, ".1f", "")),
    ]


def measure_command(folder: Path, num_steps: int, overrides: Sequence[str]) -> None:
    """`tinyr1v train` by hand: where the time to the first trained step goes, and the peak memory at the end."""
    settings = [f"run.folder={folder / 'runs'}", "run.name=command", f"run.num_steps={num_steps}", *overrides]
    command = [str(Path(sys.executable).with_name("tinyr1v")), "train", "--config", str(CONFIG), *settings]
    lines = _timed_lines(command)
    print_table("from the command to the first trained step", _start_rows(lines))
    summary = json.loads((folder / "runs" / "command" / "summary.json").read_text())
    memory = summary["peak_memory_mib"]
    rows = [(name, f"{mib:,.0f} MiB") for name, mib in memory.items()]
    print_table("peak memory", [*rows, ("all together", f"{sum(memory.values()):,.0f} MiB")])
    metrics = (folder / "runs" / "command" / "metrics.jsonl").read_text().splitlines()
    seconds = [json.loads(line)["seconds_step"] for line in metrics][NUM_WARM_STEPS:] or [float("nan")]
    print_table("steps of the command's run, for comparison", [("step", spread(seconds))])


def _timed_lines(command: Sequence[str]) -> list[tuple[float, str]]:
    """Lines of the progress with the seconds at which they came."""
    start = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    lines = [(time.monotonic() - start, line.strip()) for line in process.stderr]
    if process.wait():
        raise SystemExit("\n".join(line for _, line in lines[-20:]))
    return lines


def _start_rows(lines: Sequence[tuple[float, str]]) -> list[tuple[str, str]]:
    """From one mark of the progress to the next."""
    marks = (
        ("interpreter, imports, configuration", "starting Ray"),
        ("Ray, model, data, run folder", "starting rollout engines"),
        ("engines and learner, side by side", "starting weights of version"),
        ("first weights, the engine's first answer", "weights of version"),
        ("held-out items before training", "evaluated held-out items before"),
        ("step 1", "step 1"),
    )
    rows, before, evaluation_s = [], 0.0, 0.0
    for label, mark in marks:
        found = [at for at, line in lines if " ".join(line.split()).startswith(mark)]
        if found:
            rows.append((label, f"{found[0] - before:5.1f} s"))
            evaluation_s += found[0] - before if label.startswith("held-out") else 0.0
            before = found[0]
    ready = [line for _, line in lines if " ready after " in line]
    rows += [("  " + line.split(" ready")[0] + " took", line.split("after ")[1]) for line in ready]
    rows.append(("together", f"{before:5.1f} s"))
    rows.append(("without the held-out items", f"{before - evaluation_s:5.1f} s  (target <= 60 s)"))
    return rows


if __name__ == "__main__":
    main()
