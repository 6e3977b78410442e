"""How long a step takes: from stated or recorded throughput, else from the accelerator's data sheet and assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinyr1v_ray.cluster.shape import Accelerator
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.models.shape import ModelShape
from tinyr1v_ray.planning import assumptions as given
from tinyr1v_ray.planning.memory import checkpoint_bytes
from tinyr1v_ray.planning.workload import Lengths, StepLoad, Workload


@dataclass(frozen=True)
class Throughput:
    """Completion tokens a second of all engines and of the whole learner; None: estimate it. `source` is printed."""

    generate: float | None = None
    learn: float | None = None
    publish_s: float | None = None
    source: str = ""


@dataclass(frozen=True)
class EnginePower:
    """What one engine has to work with."""

    flops_per_s: float
    bytes_per_s: float
    step_s: float
    weight_bytes: float
    kv_bytes_per_token: float
    at_once: float
    """Sequences decoded side by side."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a mean step by phase, and of the whole run."""

    generate_s: float
    learn_s: float
    publish_s: float
    checkpoint_s: float
    overlapped: bool
    num_steps: int
    start_s: float
    held_out_s: float
    source: str

    @property
    def step_s(self) -> float:
        """One step; an asynchronous run generates while it learns."""
        serial = self.learn_s + self.publish_s + self.checkpoint_s
        return max(self.generate_s, serial) if self.overlapped else self.generate_s + serial

    @property
    def run_s(self) -> float:
        """All steps, the start, and the held-out answers before and after."""
        return self.start_s + self.num_steps * self.step_s + self.held_out_s


def engine_power(
    shape: ModelShape,
    dtype: str,
    accelerator: Accelerator | None,
    num_gpus: float,
    num_threads: int,
    at_once: float,
) -> EnginePower:
    """Rates of an engine on its GPUs, or on its threads."""
    size = 2 if dtype == "bfloat16" else 4
    weights, kv_bytes = float(size * shape.num_parameters), float(shape.kv_bytes_per_token(size))
    if accelerator is None or num_gpus <= 0:
        flops = num_threads * given.CPU_FLOPS_PER_S
        return EnginePower(
            flops, num_threads * given.CPU_BYTES_PER_S, given.ENGINE_STEP_S["cpu"], weights, kv_bytes, at_once
        )
    peak = accelerator.bf16_flops_per_s if size == 2 else accelerator.fp32_flops_per_s
    bandwidth = num_gpus * accelerator.memory_bytes_per_s * given.DECODE_BANDWIDTH_SHARE
    return EnginePower(num_gpus * peak, bandwidth, given.ENGINE_STEP_S["gpu"], weights, kv_bytes, max(1.0, at_once))


def generate_seconds(
    shape: ModelShape, power: EnginePower, num_prompts: float, num_rows: float, lengths: Lengths
) -> float:
    """One engine: reads each prompt once (the completions share it), writes rows side by side, waits for the longest.

    A decoding step reads the weights once and the cache of every sequence.
    """
    read = num_prompts * (lengths.prompt * shape.flops_per_token + lengths.image * shape.flops_per_image_token)
    prefill_s = read / (power.flops_per_s * given.PREFILL_FLOPS_SHARE)
    at_once = max(1.0, min(power.at_once, num_rows))
    context = lengths.prompt + lengths.completion / 2
    arithmetic_s = (
        at_once * (shape.flops_per_token + shape.flops_per_logits) / (power.flops_per_s * given.PREFILL_FLOPS_SHARE)
    )
    traffic_s = (power.weight_bytes + at_once * context * power.kv_bytes_per_token) / power.bytes_per_s
    full_step_s = power.step_s + max(arithmetic_s, traffic_s)
    alone_step_s = power.step_s + power.weight_bytes / power.bytes_per_s
    num_full = num_rows * lengths.completion / at_once
    longest = given.LONGEST_OVER_MEAN * lengths.completion
    return prefill_s + num_full * full_step_s + (longest - lengths.completion) * alone_step_s


def learn_seconds(config: TrainConfig, shape: ModelShape, load: StepLoad, accelerator: Accelerator | None) -> float:
    """Forward and backward (3 forwards' worth), once more forward with gradient checkpointing, for the reference model,
    and for the policy before the second and later minibatches."""
    learner = config.learner
    tokens = load.shared_tokens * shape.flops_per_token
    logits = load.completion_tokens * shape.flops_per_logits
    vision = load.image_tokens * shape.flops_per_image_token
    forward = tokens + logits + vision
    passes = 3.0 + learner.gradient_checkpointing + (config.algorithm.kl_coefficient > 0)
    passes += (learner.num_minibatches - 1) / learner.num_minibatches
    if accelerator is None or learner.num_gpus_per_rank <= 0:
        threads = learner.num_threads or max(1, int(learner.num_cpus_per_rank))
        rate = learner.num_ranks * threads * given.CPU_FLOPS_PER_S * given.CPU_LEARN_FLOPS_SHARE
    else:
        peak = accelerator.bf16_flops_per_s if config.model.dtype == "bfloat16" else accelerator.fp32_flops_per_s
        rate = learner.num_ranks * learner.num_gpus_per_rank * peak * given.LEARN_FLOPS_SHARE
    return (passes * forward + logits) / rate


def estimate_time(
    config: TrainConfig,
    shape: ModelShape,
    work: Workload,
    accelerator: Accelerator | None,
    power: EnginePower,
    stated: Throughput,
) -> StepTime:
    """A mean step and the run."""
    kind, load, rollout = "cpu" if accelerator is None else "gpu", work.expected, config.rollout
    size = 2 if config.model.dtype == "bfloat16" else 4
    engines = rollout.num_engines
    generate_s = generate_seconds(shape, power, load.num_prompts / engines, load.num_rows / engines, load.lengths)
    if stated.generate:
        generate_s = load.completion_tokens / stated.generate
    learn_s = learn_seconds(config, shape, load, accelerator)
    if stated.learn:
        learn_s = load.completion_tokens / stated.learn
    publish_s = given.PUBLISH_FIXED_S[kind] + size * shape.num_parameters / given.PUBLISH_BYTES_PER_S[kind]
    before_after, looks = _held_out_items(config)
    held_out_s = 2 * generate_seconds(shape, power, before_after / engines, before_after / engines, load.lengths)
    slice_items = config.evaluation.num_slice_items
    held_out_s += looks * generate_seconds(shape, power, slice_items / engines, slice_items / engines, load.lengths)
    if stated.generate:
        held_out_s = (2 * before_after + looks * slice_items) * load.lengths.completion / stated.generate
    return StepTime(
        generate_s=generate_s,
        learn_s=learn_s,
        publish_s=publish_s if stated.publish_s is None else stated.publish_s,
        checkpoint_s=checkpoint_bytes(config, shape) / given.DISK_BYTES_PER_S / config.checkpoint.every_n_steps,
        overlapped=config.run.max_staleness > 0,
        num_steps=config.run.num_steps,
        start_s=given.START_S[kind],
        held_out_s=held_out_s if before_after or looks else 0.0,
        source=stated.source or f"{assumed_rates(accelerator)}; better: --throughput or --recorded RUN",
    )


def _held_out_items(config: TrainConfig) -> tuple[int, int]:
    """Items of the summary, and how often the slice is answered on the way."""
    evaluation = config.evaluation
    if not config.data.evaluation:
        return 0, 0
    looks = config.run.num_steps // evaluation.every_n_steps if evaluation.every_n_steps else 0
    return evaluation.num_items, looks


def assumed_rates(accelerator: Accelerator | None) -> str:
    """What an estimate rests on, in words."""
    if accelerator is None:
        return (
            f"assumed: {given.CPU_FLOPS_PER_S / 1e9:.0f} GFLOP/s a core, {given.CPU_LEARN_FLOPS_SHARE:.0%} of it "
            f"learning, {given.ENGINE_STEP_S['cpu'] * 1e3:.0f} ms an engine step"
        )
    return (
        f"assumed: learning at {given.LEARN_FLOPS_SHARE:.0%} and reading prompts at {given.PREFILL_FLOPS_SHARE:.0%} of "
        f"{accelerator.bf16_flops_per_s / 1e12:.0f} TFLOP/s, writing at {given.DECODE_BANDWIDTH_SHARE:.0%} of "
        f"{accelerator.memory_bytes_per_s / 1e12:.2f} TB/s"
    )


def stated_throughput(values: Mapping[str, float]) -> Throughput:
    """`--throughput generate=N,learn=N`."""
    words = ", ".join(f"{name} {value:,.0f} tokens/s" for name, value in values.items())
    return Throughput(values.get("generate"), values.get("learn"), None, f"stated: {words}" if words else "")
