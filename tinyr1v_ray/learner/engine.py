"""DeepSpeed around the policy: process group, ZeRO settings, AdamW."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from datetime import timedelta
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime import compiler
from torch import nn

from tinyr1v_ray.config.learner import LearnerSettings
from tinyr1v_ray.errors import LearnerError
from tinyr1v_ray.learner.rank import Membership

MAX_BUCKET_ELEMENTS = 200_000_000
"""Largest communication bucket; DeepSpeed reserves it in full, so small models get one of their own size."""


def join_ranks(settings: LearnerSettings, membership: Membership) -> None:
    """Start this process's accelerator and its process group: gloo on the CPU, NCCL on GPUs.

    DeepSpeed's shared-memory extension for CPU collectives is switched off: it needs a compiler on the machine
    and takes most of a minute to build, and gloo is fast enough for the sizes that a CPU trains.
    """
    deepspeed.utils.logger.setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch is about to rename; each call would warn.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    wanted = "cuda" if settings.num_gpus_per_rank > 0 else "cpu"
    found = get_accelerator().device_name()
    if wanted != found:
        raise LearnerError(
            f"learner rank {membership.rank} runs on {found} and learner.num_gpus_per_rank is "
            f"{settings.num_gpus_per_rank:g}; a rank uses what it reserves; change the reservation or set "
            f"DS_ACCELERATOR={wanted} for the process"
        )
    if wanted == "cpu":
        torch.set_num_threads(settings.num_threads or max(1, int(settings.num_cpus_per_rank)))
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    environment = {"RANK": membership.rank, "LOCAL_RANK": 0, "WORLD_SIZE": membership.num_ranks}
    os.environ.update({name: str(value) for name, value in environment.items()})
    os.environ.update({"MASTER_ADDR": membership.master_address, "MASTER_PORT": str(membership.master_port)})
    deepspeed.init_distributed(
        dist_backend="nccl" if wanted == "cuda" else "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        timeout=timedelta(seconds=settings.update_timeout_s),
    )


def deepspeed_settings(learner: LearnerSettings, dtype: str, num_parameters: int, world_size: int) -> dict[str, Any]:
    """DeepSpeed's own configuration. The caller sets accumulation boundaries and the learning rate.

    In bfloat16, gradients are accumulated in float32. DeepSpeed does that with float32 masters from ZeRO stage 1 on,
    so stage 0 runs as 1: weights and gradients stay whole on every rank, only the moments are divided.
    """
    is_low_precision = dtype == "bfloat16"
    bucket = min(max(num_parameters, 1_000_000), MAX_BUCKET_ELEMENTS)
    settings: dict[str, Any] = {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": learner.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": is_low_precision},
        "zero_optimization": {
            "stage": max(learner.zero_stage, 1) if is_low_precision else learner.zero_stage,
            "contiguous_gradients": True,
            "overlap_comm": learner.num_gpus_per_rank > 0,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
    }
    if is_low_precision:
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    if learner.zero_stage == 3:
        settings["zero_optimization"] |= {
            "stage3_prefetch_bucket_size": min(bucket, 50_000_000),
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_param_persistence_threshold": min(100_000, num_parameters // 1000),
        }
    return settings


def _load_muon_uncompiled() -> None:
    """Import DeepSpeed's Muon optimizer with its compile decorators off.

    ZeRO imports it to tell it from other optimizers, and its decorators then load torch's whole compiler: 1.5 s of a
    learner's start for code that AdamW never calls.
    """
    original = compiler.compile
    compiler.compile = lambda *_args, **_options: lambda function: function
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        compiler.compile = original


def build_engine(policy: nn.Module, learner: LearnerSettings, dtype: str, world_size: int) -> Any:
    """A DeepSpeed engine with AdamW over the parameters that require gradients.

    All of them get the same weight decay, as the paper's framework does [R]. torch's fused AdamW is used on
    either device: it needs no compiled extension.
    """
    _load_muon_uncompiled()
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=learner.learning_rate, betas=learner.adam_betas, weight_decay=learner.weight_decay, fused=True
    )
    num_parameters = sum(parameter.numel() for parameter in trained)
    engine, *_ = deepspeed.initialize(
        model=policy,
        optimizer=optimizer,
        model_parameters=trained,
        config=deepspeed_settings(learner, dtype, num_parameters, world_size),
        dist_init_required=False,
    )
    return engine
