"""vLLM's own settings, made of ours."""

from __future__ import annotations

import os
from pathlib import Path

import vllm
from vllm import EngineArgs, ModelRegistry
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.plugins import load_general_plugins

from tinyr1v_ray.config.engine import EngineSettings
from tinyr1v_ray.data.model_folder import folder_family
from tinyr1v_ray.errors import ModelError
from tinyr1v_ray.models.family import ModelFamily


def engine_arguments(settings: EngineSettings, model_folder: Path, max_images: int) -> EngineArgs:
    """vLLM's settings. `VLLM_*` variables are read when the engine starts, so they are set here and nowhere else.

    Raises ModelError when the installed vLLM does not serve the model.
    """
    model, weights, on_gpu = settings.model, settings.weights, settings.num_gpus > 0
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if not on_gpu:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(settings.kv_cache_gib)))
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    family = folder_family(model_folder, model.family)
    arguments = EngineArgs(
        model=str(model_folder),
        dtype=model.dtype,
        seed=settings.seed,
        max_model_len=model.max_length,
        max_num_seqs=settings.max_num_sequences,
        # A seeded request whose prefill is split dies on the CPU, so a prompt must fit into one engine step.
        enable_chunked_prefill=on_gpu,
        max_num_batched_tokens=None if on_gpu else max(2 * model.max_length, 2048),
        enforce_eager=not on_gpu,
        tensor_parallel_size=settings.num_workers,
        gpu_memory_utilization=settings.gpu_memory_share,
        enable_sleep_mode=on_gpu and settings.sleep_level > 0,
        logprobs_mode="processed_logprobs",
        generation_config="vllm",
        mm_processor_cache_gb=0,
        weight_transfer_config=WeightTransferConfig(backend=weights.backend) if weights is not None else None,
        trust_remote_code=model.trust_remote_code,
        disable_log_stats=True,
        **family.engine_arguments(model, max_images),
    )
    _check_served(arguments, family)
    return arguments


def _check_served(arguments: EngineArgs, family: ModelFamily) -> None:
    """Raise ModelError for a model that neither vLLM's own classes nor its bridge to transformers' take."""
    load_general_plugins()
    if not ModelRegistry.get_supported_archs().isdisjoint(family.architectures):
        return
    try:
        arguments.create_model_config()
    except ValueError as error:
        raise ModelError(
            f"model folder {arguments.model} is a {family.name}, which the installed vLLM {vllm.__version__} lacks; "
            "engines are vLLM's; name another model, or install a release that serves this one"
        ) from error
