"""Groups a second on one core, from scored groups to a step's advantages, for every algorithm.

    python tests/benchmarks/bench_advantages.py

Steps of 512 groups, the default, of 8 completions, half of them right. The time is CPU time of one thread and has all
of `build_advantages`: reading the groups, the advantages, and those at equal length. The best of five rounds counts.
Asked for are 1,000 groups a second.
"""

from __future__ import annotations

import time

import numpy as np

from tinyr1v_ray.algorithms.advantages import ALGORITHMS, build_advantages
from tinyr1v_ray.config.algorithm import AlgorithmSettings
from tinyr1v_ray.types import Completion, Finish, Prompt, RolloutGroup, Score, ScoredGroup

NUM_GROUPS, NUM_COMPLETIONS, NUM_ROUNDS, ASKED = 512, 8, 5, 1000


def main() -> None:
    groups = make_groups()
    for name in ALGORITHMS:
        settings = AlgorithmSettings.model_validate({"name": name, "quality_first": {"controller": "fixed"}})
        advantages = build_advantages(settings, 96)
        seconds = min(cpu_seconds(lambda of=advantages: of(groups, {})) for _ in range(NUM_ROUNDS))
        rate = NUM_GROUPS / seconds
        print(f"{name:15} {rate:8.0f} groups/s {'' if rate >= ASKED else f'(below {ASKED})'}")


def cpu_seconds(call) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def make_groups() -> list[ScoredGroup]:
    """Lognormal lengths with a median of 36 tokens, at most 96."""
    random = np.random.default_rng(0)
    lengths_PG = np.clip(random.lognormal(np.log(36), 0.5, (NUM_GROUPS, NUM_COMPLETIONS)), 1, 96).astype(int)
    correct_PG = random.random((NUM_GROUPS, NUM_COMPLETIONS)) < 0.5
    return [
        ScoredGroup(
            RolloutGroup(
                Prompt(str(number), "math", "?", "1", (1,)),
                tuple(
                    Completion(np.zeros(length, np.int32), np.zeros(length, np.float32), "", Finish.STOP, 0, 0)
                    for length in lengths_G
                ),
            ),
            tuple(Score(float(right), correct=bool(right)) for right in correct_G),
        )
        for number, (lengths_G, correct_G) in enumerate(zip(lengths_PG, correct_PG, strict=True))
    ]


if __name__ == "__main__":
    main()
