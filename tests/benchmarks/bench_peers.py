"""A GRPO run of ours against TRL's `GRPOTrainer`: same model, items, group size, lengths and precision, in turns.

`python tests/benchmarks/bench_peers.py` makes an environment for TRL in a temporary folder (or `--environment`, kept
for the next time) and needs the package index for that. TRL generates with its own (transformers') generation: its
continuous batching refuses multimodal models, and its vLLM mode is left out, since on a CPU it does not run as
released. Both sides use the reward, clip, learning rate, clipping and optimizer settings of the run, and the whole
machine: ours an engine a core, and all cores for the learner, since on-policy one waits for the other.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench_train_run import Step, SteppedRun, load_config, machine_load, print_table, run_connected, spread

from tinyr1v_ray.data.processor import load_processor

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("trl==1.16.0", "torch==2.13.0", "torchvision==0.28.0", "transformers==5.19.0", "datasets==5.2.0"),
    *("pillow", "math-verify==0.9.0", "rapidfuzz"),
)
NUM_WARM_STEPS = 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, help="folder of TRL's environment; made if it is not there")
    parser.add_argument("--num-blocks", type=int, default=7, help="turns of each side")
    parser.add_argument("--steps-per-block", type=int, default=3)
    parser.add_argument("--micro-batches", type=int, default=1, help="TRL's gradient accumulation")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tinyr1v-bench-") as folder:
        environment = options.environment or Path(folder) / "environment"
        python = make_environment(environment)
        own = ["run.name=peers", "algorithm.name=grpo", *whole_machine()]
        config = load_config(Path(folder), [*own, *options.overrides])
        num_engines = config.rollout.num_engines
        print(f"against TRL's GRPOTrainer, with {num_engines} engines: {machine_load()}", flush=True)

        async def measure(run: SteppedRun) -> None:
            job = write_job(Path(folder) / "trl", run, options)
            with trl_process(python, job) as trl:
                await compare(run, trl, options)

        run_connected(config, measure)
    print(f"\nat the end: {machine_load()}")


def whole_machine() -> list[str]:
    """Overrides: Ray is told of twice the cores, because engines and learner take turns."""
    cores = os.cpu_count() or 1
    return [
        f"cluster.num_cpus={2 * cores}",
        f"rollout.num_engines={cores}",
        "rollout.num_cpus_per_engine=0.4",
        f"learner.num_cpus_per_rank={cores}",
    ]


def make_environment(folder: Path) -> Path:
    """TRL's interpreter. This package is put there without its dependencies, for the reward and torchvision's cure."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"making TRL's environment in {folder}: some minutes", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *PACKAGES], check=True)
        subprocess.run([*pip, "--no-deps", "--editable", str(ROOT)], check=True)
        (folder / ".installed").touch()
    return python


def write_job(folder: Path, run: SteppedRun, options: argparse.Namespace) -> Path:
    """What TRL's side needs to know, with enough items for all steps; the order is the run's own."""
    folder.mkdir()
    config, num_prompts = run.config, run.config.run.num_prompts_per_step
    num_steps = NUM_WARM_STEPS + options.num_blocks * options.steps_per_block + 1
    prompts = list(itertools.islice(run.inputs.train.iterate(0), num_steps * num_prompts))
    processor = load_processor(run.inputs.model_folder, config.model)
    job = {
        "folder": str(folder),
        "model": str(run.inputs.model_folder),
        "size": {"shortest_edge": config.model.min_pixels, "longest_edge": config.model.max_pixels},
        "items": [
            {
                "question": prompt.question,
                "answer": prompt.answer,
                "domain": prompt.domain,
                "image": prompt.images[0].path,
                "token_ids": processor.expand(prompt.token_ids, prompt.images),
            }
            for prompt in prompts
        ],
        "rules": config.reward.model_dump(
            include={"function", "format_weight", "format_weights", "relative_tolerance"}
        ),
        "num_prompts": num_prompts,
        "num_completions": config.rollout.num_completions,
        "num_micro_batches": options.micro_batches,
        "max_tokens": config.rollout.max_tokens,
        "temperature": config.rollout.temperature,
        **config.learner.model_dump(include={"learning_rate", "weight_decay", "max_grad_norm"}),
        **config.algorithm.model_dump(include={"clip_low", "clip_high"}),
        "seed": config.run.seed,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


class Trl:
    """The child: one step at a time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log

    def read(self) -> dict[str, Any]:
        """Its next report; raises RuntimeError with the end of its log when it died."""
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"TRL's process ended:\n{self._log.read_text()[-3000:]}")
        return json.loads(line)

    def step(self) -> dict[str, Any]:
        """Make one step."""
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self.read()


@contextmanager
def trl_process(python: Path, job: Path) -> Iterator[Trl]:
    """The child, ended with the block."""
    log = job.with_suffix(".log")
    command = [str(python), str(Path(__file__).with_name("bench_peers_trl.py")), str(job)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        trl = Trl(process, log)
        trl.read()
        yield trl
    finally:
        process.stdin.close()
        process.wait(timeout=60)


async def compare(run: SteppedRun, trl: Trl, options: argparse.Namespace) -> None:
    """Turns of both; the other side waits meanwhile."""
    await run.advance(NUM_WARM_STEPS)
    for _ in range(NUM_WARM_STEPS):
        agree = (await asyncio.to_thread(trl.step))["prompts_agree"]
    ours: list[Step] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(options.num_blocks):
        ours += await run.advance(options.steps_per_block)
        for _ in range(options.steps_per_block):
            theirs.append(await asyncio.to_thread(trl.step))
    print_rows(run, ours, theirs, agree)


def print_rows(run: SteppedRun, ours: Sequence[Step], theirs: Sequence[dict[str, Any]], agree: bool) -> None:
    """Seconds, rates, and what they were spent on."""
    num_completions = run.config.run.num_prompts_per_step * run.config.rollout.num_completions
    assert all(row["num_completions"] == num_completions for row in theirs)
    our_s, their_s = [step.seconds_step for step in ours], [row["seconds"] for row in theirs]
    our_tokens = [sum(step.lengths) / num_completions for step in ours]
    their_tokens = [row["num_tokens"] / num_completions for row in theirs]
    our_rate, their_rate = num_completions / median(our_s), num_completions / median(their_s)
    rows = [
        ("ours, seconds a step", spread(our_s)),
        ("TRL, seconds a step", spread(their_s)),
        ("ours, completions/s", f"{our_rate:.0f}"),
        ("TRL, completions/s", f"{their_rate:.0f}"),
        ("ratio of completions/s", f"{our_rate / their_rate:.2f}  (target >= 2)"),
        ("  of the fastest steps alone", f"{min(their_s) / min(our_s):.2f}  (least touched by other load)"),
        ("ours, tokens per answer", spread(our_tokens, ".1f", "")),
        ("TRL, tokens per answer", spread(their_tokens, ".1f", "")),
        (
            "ratio of tokens/s",
            f"{our_rate * median(our_tokens) / (their_rate * median(their_tokens)):.2f}",
        ),
        ("ours, accuracy of the last turn", f"{sum(step.accuracy for step in ours[-3:]) / 3:.3f}"),
        ("TRL, accuracy of the last turn", f"{sum(row['accuracy'] for row in theirs[-3:]) / 3:.3f}"),
        ("both read the same prompt tokens", "yes" if agree else "NO"),
    ]
    shape = f"{run.config.run.num_prompts_per_step} x {run.config.rollout.num_completions}"
    print_table(f"GRPO on {shape} completions, {len(ours)} steps each", rows)


if __name__ == "__main__":
    main()
