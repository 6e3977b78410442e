"""`tinyr1v train`: one LIPO training run of one specialist."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from tinyr1v_ray.config.train import TrainConfig


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "train",
        help="train a specialist with LIPO (or GRPO, Dr. GRPO, DAPO)",
        description="Train one specialist: Ray actors for vLLM rollouts, reward scorers and a DeepSpeed learner. "
        "The run's folder gets its configuration, metrics, trained groups, checkpoints and the exported specialist.",
        epilog="example: tinyr1v train --config configs/miniature_ocr_cpu.yaml algorithm.lipo.boost=0.5",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="YAML file, or a name of tinyr1v configs list"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that replace the file's, such as run.name=mine"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run from its last checkpoint")
    parser.add_argument(
        "--allow-previous-checkpoint",
        action="store_true",
        help="with --resume: pass over a damaged checkpoint for the one before",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Load the configuration, train, print the summary."""
    from tinyr1v_ray.config.base import load_settings
    from tinyr1v_ray.config.custom_function import look_here
    from tinyr1v_ray.config.train import TrainConfig

    look_here()
    config = load_settings(TrainConfig, options.config, options.overrides)
    if config.placement.colocate and config.rollout.num_gpus_per_engine:
        _check_gpus(config)

    from tinyr1v_ray.jobs.train.job import TrainRequest, run_training

    request = TrainRequest(config, options.resume, options.allow_previous_checkpoint, sys.argv)
    print(run_training(request))
    return 0


def _check_gpus(config: TrainConfig) -> None:
    """By the plan's arithmetic, for the GPUs of this machine where the run starts its cluster here."""
    from tinyr1v_ray.cluster.connection import cluster_address
    from tinyr1v_ray.cluster.host import smallest_gpu
    from tinyr1v_ray.planning.train_plan import check_shared_gpus

    if cluster_address(config.cluster.address) is None and (gpu := smallest_gpu()) is not None:
        check_shared_gpus(config, gpu)
