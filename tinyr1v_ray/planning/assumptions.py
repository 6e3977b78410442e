"""Every metric that a plan takes for granted, in one place, each with where it comes from.

Processes on the CPU are dominated by what their libraries take. Those footprints were measured on finished runs of the
miniature (`summary.json`: peak_memory_mib), less what the estimate itself counts; a test holds them to a real run.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Footprint:
    """Resident memory of a process before it does any work, MiB: interpreter, Ray worker and imported libraries."""

    driver_mib: float = 770.0
    engine_mib: float = 940.0
    learner_mib: float = 745.0
    scorer_mib: float = 175.0


CPU_FOOTPRINT = Footprint()
"""Measured: torch 2.13 (CPU), vLLM 0.32, DeepSpeed 0.19, Ray 2.60, Python 3.11."""
GPU_HOST_FOOTPRINT = Footprint(driver_mib=1500.0, engine_mib=5000.0, learner_mib=3500.0)
"""Main memory of the same processes with CUDA libraries and pinned buffers: an allowance, not a measurement."""

GPU_CONTEXT_GIB = 1.5
"""GPU memory of a process that no allocator counts: CUDA context, NCCL channels, loaded kernels (an allowance)."""
GPU_FRAGMENTATION = 1.08
"""Reserved over allocated GPU memory of a learner rank whose batches differ in size (an allowance)."""
CPU_ALLOCATOR = 1.12
"""Resident over live bytes of activations on the CPU, where freed blocks stay with the process (measured)."""
QUEUED_REQUEST_MIB = 0.5
"""What an engine on the CPU keeps of each request that it was ever asked at once: prompt, picture, log-probs, and
the arenas that they fragment (measured with 1,000 held-out items)."""
PEAK_STEP = 2.0
"""Tokens of the longest step over the mean: answers start long and shrink. The paper's LIPO curve starts at 369 and its
mean is 165; the miniature's starts at 40 and its mean is 25."""

MEAN_COMPLETION_SHARE, MEAN_COMPLETION_TOKENS = 0.25, 256.0
"""Expected completion: a quarter of `rollout.max_tokens`, at most 256 (the paper's curves: LIPO 165, GRPO 230)."""
MEAN_TEXT_TOKENS = 128.0
"""Expected text of a prompt: template, instruction and question."""
MEAN_IMAGE_SHARE = 0.5
"""Expected image tokens as a share of what `model.max_pixels` allows."""
MINIATURE_TOKENS = {"math": (23.0, 7.0), "structure": (31.1, 11.4), "ocr": (19.2, 4.2)}
"""Prompt tokens, image tokens among them: means over 400 items of each pool of the miniature."""

CPU_FLOPS_PER_S, CPU_BYTES_PER_S = 100e9, 10e9
"""Of one core: peak in float32 (AVX-512), memory bandwidth."""
MERGE_FLOPS_SHARE = {"gpu": 0.5, "cpu": 0.5}
"""Share of the float32 peak that merging reaches (large products)."""
MERGE_IO_BYTES_PER_S = 1e9
"""Files of a merge."""
DIAL_ANSWER_S, DIAL_MODEL_S = 0.012, 1.5
"""An answer of the miniature on one core, 150 at once (measured), and loading a model (an allowance)."""
ZERO_BUCKET = 200_000_000
"""Elements of DeepSpeed's largest communication bucket, as the learner sets it."""
ZERO3_LIVE = 1_000_000_000
"""Parameters that ZeRO 3 keeps gathered at once, as the learner sets it."""
GPU_BATCHED_TOKENS = 8192
"""Tokens of one step of an engine on a GPU (vLLM's default there)."""
NCCL_BUFFER_GIB = 2.0
"""Two packed buffers of 1 GiB through which weights travel, on both sides."""
