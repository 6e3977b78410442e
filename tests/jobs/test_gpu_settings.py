"""The settings that ship for eight GPUs run as they are on the CPU, with sizes of the miniature.

bfloat16 engine, ZeRO 3 in bfloat16 over three ranks (whose shards are padded), KL, checkpointing, four minibatches.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tinyr1v_ray.config.base import parse_settings, read_yaml
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.model_folder import resolve_model_folder

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CONFIG = Path(__file__).parents[2] / "configs" / "lipo_math_8gpu.yaml"
NUM_STEPS = 2
SIZES = [
    f"run.num_steps={NUM_STEPS}",
    "run.num_prompts_per_step=8",
    "model.path=miniature",
    "model.max_length=448",
    "model.max_pixels=200704",
    "data.train=[miniature:math]",
    "data.evaluation=[miniature:math]",
    "data.question_column=question",
    "data.image_column=image",
    "data.domain=math",
    "evaluation.num_items=4",
    "evaluation.every_n_steps=1",
    "evaluation.num_slice_items=4",
    "rollout.num_engines=1",
    "rollout.num_cpus_per_engine=0.5",
    "rollout.max_tokens=48",
    "reward.num_scorers=1",
    "reward.num_cpus_per_scorer=0.1",
    "learner.num_ranks=3",
    "learner.num_cpus_per_rank=0.3",
    "checkpoint.every_n_steps=1",
]
NO_GPU = [
    "rollout.num_gpus_per_engine=0",
    "learner.num_gpus_per_rank=0",
    "weights.backend=cpu_file",
    "placement.colocate=false",  # three engines are much for two cores; turns are tested in test_colocated.py
]


def test_settings_for_eight_gpus_run_scaled_to_the_miniature(tmp_path: Path) -> None:
    """Every version passes the canary, the steps are finite, and the export has float32 weights that eight optimizer
    steps of 1e-6 moved: far below what bfloat16 weights could take up."""
    settings = ["run.name=scaled", f"run.folder={tmp_path}", *SIZES, *NO_GPU]
    config = parse_settings(TrainConfig, read_yaml(CONFIG), settings)
    learner = config.learner
    assert (config.model.dtype, learner.zero_stage, learner.gradient_checkpointing) == ("bfloat16", 3, True)
    assert (learner.num_minibatches, config.algorithm.kl_coefficient) == (4, 0.01)
    tinyr1v = Path(sys.executable).with_name("tinyr1v")
    done = subprocess.run(
        [tinyr1v, "train", "--config", CONFIG, *settings], capture_output=True, text=True, timeout=1200, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "scaled" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, NUM_STEPS + 1))
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    base = load_file(resolve_model_folder("miniature", "") / "model.safetensors")
    export = load_file(tmp_path / "scaled" / "export" / "model.safetensors")
    moved = torch.cat([(export[name] - base[name]).flatten() for name in base]).abs()
    num_optimizer_steps = NUM_STEPS * learner.num_minibatches
    assert moved.max() < 1.5 * num_optimizer_steps * learner.learning_rate
    assert (moved > 0).double().mean() > 0.5
