"""AMM's step against the published WUDI code's, on the real shapes of Qwen2.5-VL-3B, K = 3.

    python tests/benchmarks/bench_merge_maths.py [--threads 2] [--shapes 2048x2048 ...] [--device cpu] [--clock cpu]

Published formulation: autograd through sum_i ||(m - tau_i) tau_i^T||^2 / ||tau_i||^2 with [K, out, out] temporaries and
torch's Adam. Both sides run on the same tensors and thread count, each in a process of its own, one after the other; a
step's time is the difference of a longer and a shorter run. `--clock cpu --threads 1` counts the process's CPU seconds,
for a machine that others use too. Prints one line per shape, a decoder layer's total for 300
steps, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

SHAPES = {
    (2048, 2048): 7.0, (256, 2048): 1.0, (11008, 2048): 40.0, (2048, 11008): 1.25,
    (3840, 1280): None, (3420, 1280): None, (1280, 3420): None,
}  # fmt: skip
"""Shape -> the ratio that is asked for."""
LAYER = {(2048, 2048): 2, (256, 2048): 2, (11008, 2048): 2, (2048, 11008): 1}
NUM_EXPERTS, NUM_STEPS = 3, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shapes", nargs="*", default=[f"{r}x{c}" for r, c in SHAPES])
    parser.add_argument("--method", default="wudi", choices=["wudi", "amm"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--side", choices=["published", "ours"])
    options = parser.parse_args()
    shapes = [tuple(int(side) for side in shape.split("x")) for shape in options.shapes]
    if options.side:
        print(json.dumps(measure(options.side, shapes[0], options)))
        return
    results = {}
    for shape in shapes:
        published, ours = (in_own_process(side, shape, options) for side in ("published", "ours"))
        results[shape] = (published, ours)
        ratio, asked = published["step_s"] / ours["step_s"], SHAPES.get(shape)
        print(
            f"{shape[0]:>5}x{shape[1]:<5} "
            f"published {published['step_s']:8.4f} s/step {published['peak_gib']:5.2f} GiB   "
            f"{ours['form']:<4} {ours['step_s']:8.4f} s/step {ours['peak_gib']:5.2f} GiB, "
            f"set-up {ours['setup_s']:6.2f} s   {ratio:6.2f}x{f' (asked {asked:g}x)' if asked else ''}",
            flush=True,
        )
    if all(shape in results for shape in LAYER):
        whole = [
            sum(n * (results[s][side]["setup_s"] + NUM_STEPS * results[s][side]["step_s"]) for s, n in LAYER.items())
            for side in (0, 1)
        ]
        peak = [max(results[s][side]["peak_gib"] for s in LAYER) for side in (0, 1)]
        print(
            f"decoder layer, {NUM_STEPS} steps: published {whole[0]:.0f} s, ours {whole[1]:.0f} s: "
            f"{whole[0] / whole[1]:.1f}x (asked 14x); "
            f"peak {peak[0]:.2f} against {peak[1]:.2f} GiB: 1/{peak[0] / peak[1]:.1f} (asked 1/6)"
        )


def in_own_process(side: str, shape: tuple[int, ...], options: argparse.Namespace) -> dict:
    command = [
        sys.executable, __file__, "--side", side, "--shapes", f"{shape[0]}x{shape[1]}", "--threads",
        str(options.threads), "--device", options.device, "--method", options.method, "--clock", options.clock,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def measure(side: str, shape: tuple[int, ...], options: argparse.Namespace) -> dict:
    import torch

    from tinyr1v_ray.config.merge import WUDI, AmmConfig
    from tinyr1v_ray.merging.amm import merge_task_vectors
    from tinyr1v_ray.merging.costs import MatrixShape, choose_form

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    large = shape[0] * shape[1] > 10_000_000
    short, long = (1, 3) if large else (2, 12)
    if shape[0] * shape[1] < 1_000_000 or options.device == "cuda":
        short, long = 20, 120
    if side == "published" and large and options.device == "cpu":
        short, long = 0, 1
    stack = 1e-3 * torch.randn(NUM_EXPERTS, *shape, device=options.device)
    config = WUDI if options.method == "wudi" else AmmConfig()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    form = "published"
    # the form of a whole merge, whatever the number of steps measured
    chosen = choose_form(MatrixShape(*shape, (None,) * NUM_EXPERTS), config)
    _clear_peak()
    before = _status_bytes("VmRSS")

    def run(num_steps: int) -> float:
        nonlocal form
        start = clock()
        if side == "published":
            if num_steps:
                published(stack, num_steps)
        else:
            form = merge_task_vectors(stack, config.model_copy(update={"steps": num_steps}), form=chosen).form
        if options.device == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    if not large:
        run(short)
    first_s, second_s = run(short), run(long)
    step_s = (second_s - first_s) / (long - short)
    peak = _status_bytes("VmHWM") - before + stack.numel() * 4
    if options.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    return {
        "step_s": step_s, "setup_s": max(first_s - short * step_s, 0.0), "peak_gib": peak / 2**30, "form": form,
    }  # fmt: skip


def published(stack, num_steps: int) -> None:
    """As the authors describe it, batched over experts, differentiated by autograd."""
    import torch

    merged = torch.nn.Parameter(stack.sum(0))
    optimiser = torch.optim.Adam([merged], lr=1e-5, weight_decay=0)
    norms = stack.reshape(len(stack), -1).square().sum(1)
    for _ in range(num_steps):
        disturbance = (merged.unsqueeze(0) - stack) @ stack.transpose(1, 2)
        loss = (disturbance.square() / norms[:, None, None]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def _clear_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
