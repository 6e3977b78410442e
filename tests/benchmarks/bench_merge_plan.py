"""The planner's time against the clock, and what a second worker brings, on a scaled Qwen2.5-VL language model.

    python tests/benchmarks/bench_merge_plan.py [--layers 2] [--divisor 2] [--steps 60] [--clock cpu]

Shapes are those of Qwen2.5-VL-3B divided by `--divisor`; AMM with its defaults but for the number of steps. The
machine's rates are measured right before, by the planner itself. With W workers, one thread each, efficiency is
t_1 / (W t_W). `--clock cpu` counts one worker's processor seconds, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.merging.estimate import measure_rates, merge_seconds
from tinyr1v_ray.merging.local_run import local_runner
from tinyr1v_ray.merging.session import Silent, prepare_merge, run_merge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--divisor", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_merge_plan_"))
    try:
        models = write_models(folder, options.layers, options.divisor)
        taken = {}
        clock = time.perf_counter if options.clock == "wall" else time.process_time
        both = {1, min(2, os.cpu_count() or 1)} if options.clock == "wall" else {1}
        for num_workers in sorted(both):
            config = MergeConfig.model_validate(
                {
                    "base": str(models[0]), "experts": [str(m) for m in models[1:]],
                    "output": str(folder / f"merged_{num_workers}"), "method": {"amm": {"steps": options.steps}},
                }
            )  # fmt: skip
            prepared = prepare_merge(config, models[0])
            planned_s = merge_seconds(prepared.plan, measure_rates("cpu", 1, clock), num_workers)
            start = clock()
            run_merge(prepared, local_runner(num_workers, 8 << 30), Silent())
            taken[num_workers] = clock() - start
            print(
                f"{num_workers} workers: planned {planned_s:.1f} s, measured {taken[num_workers]:.1f} s "
                f"({taken[num_workers] / planned_s - 1:+.0%})",
                flush=True,
            )
        if 2 in taken:
            print(f"efficiency from 1 to 2 workers: {taken[1] / (2 * taken[2]):.2f}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_models(folder: Path, num_layers: int, divisor: int) -> list[Path]:
    hidden, intermediate, key_value = 2048 // divisor, 11008 // divisor, 256 // divisor
    shapes = {"model.embed_tokens.weight": (20_000, hidden)}
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q", hidden), ("k", key_value), ("v", key_value), ("o", hidden)):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (rows, hidden)
        for name in ("gate", "up"):
            shapes[f"{prefix}mlp.{name}_proj.weight"] = (intermediate, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, intermediate)
    generator = torch.Generator().manual_seed(0)
    base = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    models = []
    for index in range(4):
        model = folder / f"model_{index}"
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"model_type": "qwen2", "tie_word_embeddings": True}))
        moved = {n: t + (1e-3 * torch.randn(t.shape, generator=generator) if index else 0) for n, t in base.items()}
        save_file(moved, model / "model.safetensors")
        models.append(model)
    return models


if __name__ == "__main__":
    main()
