"""LIPO against GRPO: the same base, data, steps and seeds, through `tinyr1v train`; accuracy and tokens per answer.

`python tests/benchmarks/bench_lipo_grpo.py --folder runs/lipo_grpo`: runs that are finished in the folder, with the
same configuration, are read; those that are missing are run (some minutes each), unfinished ones resumed. Intervals
are 95 %, by bootstrap over the held-out items, each item's metric being its mean over the seeds: they hold for these
seeds, whose own spread is shown beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_train_run import CONFIG, machine_load, print_table

from tinyr1v_ray.config.base import load_settings, read_yaml
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.evaluation.held_out import HeldOutAnswer, read_answers
from tinyr1v_ray.evaluation.statistics import Estimate, bootstrap_mean, paired_bootstrap
from tinyr1v_ray.telemetry.run_folder import CONFIG_FILE, differing_keys

ALGORITHMS = ("grpo", "lipo")
NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class Run:
    """One run: which algorithm, which seed, where, with which further settings."""

    algorithm: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]

    @property
    def settings(self) -> list[str]:
        """As on the command line; `boost` and the rest of LIPO's settings are the demo's."""
        name = f"{self.algorithm}-{self.seed}"
        where = [f"run.folder={self.folder}", f"run.name={name}"]
        return [*where, f"algorithm.name={self.algorithm}", f"run.seed={self.seed}", *self.overrides]

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder / f"{self.algorithm}-{self.seed}"

    def is_finished(self) -> bool:
        """Whether it is there; a run with another configuration is an error, not a missing one."""
        if not (self.path / CONFIG_FILE).exists():
            return False
        wanted = load_settings(TrainConfig, CONFIG, self.settings).model_dump(mode="json")
        differing = list(differing_keys(read_yaml(self.path / CONFIG_FILE), wanted))
        if differing:
            raise SystemExit(f"{self.path} was made with other values of {', '.join(differing)}; choose another folder")
        return (self.path / "summary.json").exists()

    def make(self) -> None:
        """Run or resume it; its output goes to a log beside the folder."""
        resume = ["--resume"] if (self.path / CONFIG_FILE).exists() else []
        command = [str(Path(sys.executable).with_name("tinyr1v")), "train", "--config", str(CONFIG), *resume]
        log = self.folder / f"{self.path.name}.log"
        with log.open("a") as output:
            code = subprocess.run([*command, *self.settings], stdout=output, stderr=output, check=False).returncode
        if code:
            raise RuntimeError(f"{self.path.name} ended with {code}; see {log}: {log.read_text()[-500:]}")
        print(f"  {self.path.name} done", flush=True)

    def answers(self, when: str) -> dict[str, HeldOutAnswer]:
        """Held-out answers by prompt."""
        return {answer.prompt_id: answer for answer in read_answers(self.path / "evaluation" / f"{when}.jsonl")}

    def seconds(self) -> float:
        """Seconds of all steps together."""
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        return sum(json.loads(line)["seconds_step"] for line in lines)


def main() -> None:
    """Run what is missing, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs") / "lipo_grpo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parallel", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="runs side by side")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    runs = [Run(name, seed, folder, tuple(options.overrides)) for seed in options.seeds for name in ALGORITHMS]
    missing = [run for run in runs if not run.is_finished()]
    print(f"LIPO against GRPO: {machine_load()}; {len(missing)} of {len(runs)} runs to make", flush=True)
    with ThreadPoolExecutor(options.parallel) as pool:
        list(pool.map(Run.make, missing))
    by_algorithm = {name: [run for run in runs if run.algorithm == name] for name in ALGORITHMS}
    _print_runs(runs)
    _print_comparison(by_algorithm)


def _print_runs(runs: Sequence[Run]) -> None:
    rows = []
    for run in runs:
        before, after = run.answers("before").values(), run.answers("after").values()
        texts = [f"accuracy {_accuracy(before):.1%} -> {_accuracy(after):.1%}"]
        texts += [f"tokens {_tokens(before):.1f} -> {_tokens(after):.1f}", f"steps took {run.seconds():.0f} s"]
        rows.append((run.path.name, "   ".join(texts)))
    print_table("each run, held-out items before -> after", rows)


def _accuracy(answers: Collection[HeldOutAnswer]) -> float:
    return float(np.mean([answer.correct for answer in answers]))


def _tokens(answers: Collection[HeldOutAnswer]) -> float:
    return float(np.mean([answer.num_tokens for answer in answers]))


def _items(answers: dict[str, HeldOutAnswer]) -> tuple[tuple[str, str], ...]:
    """Which items these are: ids and reference answers."""
    return tuple(sorted((key, answer.reference) for key, answer in answers.items()))


def _print_comparison(by_algorithm: dict[str, list[Run]]) -> None:
    """Items are paired; an item's metric is its mean over the seeds."""
    after = {name: [run.answers("after") for run in runs] for name, runs in by_algorithm.items()}
    prompt_ids = sorted(after["grpo"][0])
    items = {_items(answers) for runs in after.values() for answers in runs}
    if len(items) != 1:
        raise SystemExit("the runs answered different held-out items; make them from the same data, in another folder")

    def means(name: str, metric: str) -> np.ndarray:
        rows = [[float(getattr(answers[key], metric)) for key in prompt_ids] for answers in after[name]]
        return np.mean(rows, axis=0)

    correct = {name: means(name, "correct") for name in ALGORITHMS}
    tokens = {name: means(name, "num_tokens") for name in ALGORITHMS}
    ratio = ratio_of_means(tokens["grpo"], tokens["lipo"])
    seeds = [(grpo.values(), lipo.values()) for grpo, lipo in zip(after["grpo"], after["lipo"], strict=True)]
    by_seed = [_tokens(lipo) / _tokens(grpo) for grpo, lipo in seeds]
    gains = [_accuracy(lipo) - _accuracy(grpo) for grpo, lipo in seeds]
    rows = [(f"accuracy, {name}", _percent(bootstrap_mean(correct[name]))) for name in ALGORITHMS]
    change = paired_bootstrap(correct["grpo"], correct["lipo"], num_resamples=NUM_RESAMPLES)
    rows.append(("accuracy, lipo - grpo", _percent(change, "+")))
    rows.append(("  by seed", ", ".join(f"{gain:+.1%}" for gain in gains)))
    rows += [(f"tokens per answer, {name}", _interval(bootstrap_mean(tokens[name]), ".1f")) for name in ALGORITHMS]
    rows.append(("tokens, lipo / grpo", f"{_interval(ratio, '.3f')}  (target <= 0.6)"))
    rows.append(("  by seed", ", ".join(f"{value:.3f}" for value in by_seed)))
    title = f"after training, {len(prompt_ids)} held-out items x {len(after['grpo'])} seeds, 95 % intervals in brackets"
    print_table(title, rows)


def ratio_of_means(first_N: np.ndarray, second_N: np.ndarray, seed: int = 0) -> Estimate:
    """mean(second) / mean(first) with its percentile bootstrap interval over items, which stay paired."""
    generator = np.random.default_rng(seed)
    rows = (generator.integers(first_N.size, size=first_N.size) for _ in range(NUM_RESAMPLES))
    ratios = [float(second_N[row].mean() / first_N[row].mean()) for row in rows]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Estimate(float(second_N.mean() / first_N.mean()), float(low), float(high))


def _percent(estimate: Estimate, sign: str = "") -> str:
    return _interval(Estimate(*(100 * value for value in estimate)), f"{sign}.1f", " %")


def _interval(estimate: Estimate, form: str, unit: str = "") -> str:
    return f"{estimate.value:{form}}{unit} [{estimate.low:{form}}, {estimate.high:{form}}]"


if __name__ == "__main__":
    main()
