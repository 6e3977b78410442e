"""Memory of each kind of actor, part by part: GPU memory where it has a GPU, main memory for all."""

from __future__ import annotations

from dataclasses import dataclass

from tinyr1v_ray.cluster.shape import GIB, Accelerator
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.models.shape import ModelShape
from tinyr1v_ray.planning.activations import (
    MicroBatchSize,
    language_bytes,
    layer_bytes,
    logits_bytes,
    vision_bytes,
)
from tinyr1v_ray.planning.assumptions import (
    CPU_ALLOCATOR,
    CPU_FOOTPRINT,
    GPU_BATCHED_TOKENS,
    GPU_CONTEXT_GIB,
    GPU_FRAGMENTATION,
    GPU_HOST_FOOTPRINT,
    MIB,
    NCCL_BUFFER_GIB,
    QUEUED_REQUEST_MIB,
    ZERO3_LIVE,
    ZERO_BUCKET,
)
from tinyr1v_ray.planning.workload import StepLoad, Workload
from tinyr1v_ray.weight_sync.ipc.chunks import CHUNK_BYTES


@dataclass(frozen=True)
class ActorMemory:
    """Memory of one actor of a kind, bytes. `expected` and `most` are parts by name: at the run's longest step, and at
    the longest that the settings allow. `host_bytes` is main memory; on the CPU it is the sum of `expected`.
    `rest_bytes` stay on a shared GPU while the other works there."""

    role: str
    count: int
    on_gpu: bool
    expected: dict[str, float]
    most: dict[str, float]
    host_bytes: float
    notes: tuple[str, ...] = ()
    rest_bytes: float = 0.0

    @property
    def expected_bytes(self) -> float:
        """Sum of the parts."""
        return sum(self.expected.values())

    @property
    def most_bytes(self) -> float:
        """Sum of the parts."""
        return sum(self.most.values())


@dataclass(frozen=True)
class EngineNeeds:
    """What an engine is asked for, by train and evaluate alike."""

    dtype: str
    num_gpus: float
    count: int
    max_length: int
    mean_length: float
    max_num_sequences: int
    kv_cache_gib: float
    gpu_memory_share: float
    queued_requests: int
    image_tokens: float
    transfer_bytes: float = 0.0
    keeps_weights_asleep: bool = False

    @property
    def bytes_per_value(self) -> int:
        """Of weights, activations and cache."""
        return 2 if self.dtype == "bfloat16" else 4

    @property
    def tensor_parallel(self) -> int:
        """GPUs that share an engine's weights."""
        return max(1, int(self.num_gpus))


def transfer_bytes(config: TrainConfig, shape: ModelShape) -> float:
    """Of GPU memory, for weights on their way, at either end."""
    if config.weights.backend == "ipc":
        return max(CHUNK_BYTES, (2 if config.model.dtype == "bfloat16" else 4) * shape.largest_tensor)
    return NCCL_BUFFER_GIB * GIB if config.weights.backend == "nccl" else 0.0


def engine_needs(config: TrainConfig, shape: ModelShape, work: Workload) -> EngineNeeds:
    """A training's engines."""
    rollout = config.rollout
    held_out = config.evaluation.num_items if config.data.evaluation else 0
    queued = max(work.window_groups * rollout.num_completions, held_out) // rollout.num_engines
    return EngineNeeds(
        dtype=config.model.dtype,
        num_gpus=rollout.num_gpus_per_engine,
        count=rollout.num_engines,
        max_length=config.model.max_length,
        mean_length=work.expected.lengths.row,
        max_num_sequences=rollout.max_num_sequences,
        kv_cache_gib=rollout.kv_cache_gib,
        gpu_memory_share=rollout.gpu_memory_share,
        queued_requests=queued,
        image_tokens=work.most.lengths.image,
        transfer_bytes=transfer_bytes(config, shape),
        keeps_weights_asleep=config.placement.colocate and config.placement.sleep_level == 1,
    )


def engine_memory(needs: EngineNeeds, shape: ModelShape, accelerator: Accelerator | None) -> ActorMemory:
    """One rollout engine (all of its GPUs have the same parts)."""
    size, weights = needs.bytes_per_value, float(shape.num_parameters * needs.bytes_per_value)
    if needs.num_gpus <= 0 or accelerator is None:
        footprint = CPU_FOOTPRINT.engine_mib * MIB
        pixels = needs.image_tokens * shape.vision.patches_per_token * shape.vision.patch_values * 4
        parts = {
            "libraries": footprint,
            "weights": weights,
            "KV cache": max(1, round(needs.kv_cache_gib)) * GIB,
            "requests": needs.queued_requests * QUEUED_REQUEST_MIB * MIB,
        }
        most = {**parts, "image pixels": min(needs.queued_requests, needs.max_num_sequences) * pixels}
        return ActorMemory("engine", needs.count, False, parts, most, sum(parts.values()))
    taken = needs.gpu_memory_share * accelerator.memory_gib * GIB
    work = float(GPU_BATCHED_TOKENS) * (2 * shape.intermediate_size + 6 * shape.hidden_size) * size
    work += needs.max_num_sequences * shape.vocab_size * 4 * 2
    work += needs.image_tokens * shape.vision.patches_per_token * 3 * shape.vision.intermediate_size * size
    rank = needs.tensor_parallel
    parts = {"weights": weights / rank, "activations": work / rank, "CUDA and NCCL": GPU_CONTEXT_GIB * GIB}
    parts["KV cache"] = max(0.0, taken - sum(parts.values()))
    if needs.transfer_bytes:
        parts["weight transfer"] = needs.transfer_bytes
    host = (GPU_HOST_FOOTPRINT.engine_mib * MIB + (1.5 if needs.keeps_weights_asleep else 0.5) * weights / rank) * rank
    notes, rest = _kv_notes(needs, shape, parts["KV cache"]), parts["CUDA and NCCL"] + parts["activations"]
    return ActorMemory("engine", needs.count, True, parts, parts, host, notes, rest)


def kv_sequences(needs: EngineNeeds, shape: ModelShape, kv_bytes: float) -> tuple[float, float]:
    """Sequences that the KV cache holds at once: of the mean length, and of `model.max_length`."""
    per_token = shape.kv_bytes_per_token(needs.bytes_per_value) / min(needs.tensor_parallel, shape.num_kv_heads)
    return kv_bytes / per_token / max(needs.mean_length, 1.0), kv_bytes / per_token / needs.max_length


def _kv_notes(needs: EngineNeeds, shape: ModelShape, kv_bytes: float) -> tuple[str, ...]:
    mean, longest = kv_sequences(needs, shape, kv_bytes)
    return (f"KV cache holds {mean:,.0f} sequences of the mean length, {longest:,.0f} of {needs.max_length:,} tokens",)


def learner_memory(config: TrainConfig, shape: ModelShape, work: Workload) -> ActorMemory:
    """One learner rank; parts that ZeRO divides are divided."""
    learner, on_gpu = config.learner, config.learner.num_gpus_per_rank > 0
    size = 2 if config.model.dtype == "bfloat16" else 4
    all_parameters = float(shape.num_parameters)
    trained = all_parameters - (0 if config.model.train_vision else shape.num_vision_parameters)
    fixed = _model_states(config, shape, trained, size)
    if on_gpu:
        fixed["CUDA and NCCL"] = GPU_CONTEXT_GIB * GIB + transfer_bytes(config, shape)
    else:
        fixed = {"libraries": CPU_FOOTPRINT.learner_mib * MIB, **fixed}
    slack = GPU_FRAGMENTATION if on_gpu else CPU_ALLOCATOR
    expected, most = (
        {**fixed, **{name: slack * part for name, part in _work_parts(config, shape, batch, size).items()}}
        for batch in (_shared_batch(work.peak), _largest_batch(config, work.most))
    )
    host = sum(expected.values())
    if on_gpu:
        copies = 2 if config.algorithm.kl_coefficient > 0 or size < 4 else 1  # float32, while the model is loaded
        host = GPU_HOST_FOOTPRINT.learner_mib * MIB + copies * 4 * all_parameters
    return ActorMemory("learner rank", learner.num_ranks, on_gpu, expected, most, host, (), sum(fixed.values()))


def _model_states(config: TrainConfig, shape: ModelShape, trained: float, size: int) -> dict[str, float]:
    """Weights, gradients, masters and moments as DeepSpeed keeps them (see learner/engine.py for the stages)."""
    learner, parameters = config.learner, float(shape.num_parameters)
    stage = max(learner.zero_stage, 1) if size < 4 else learner.zero_stage
    ranks = learner.num_ranks
    whole_weights, whole_gradients = stage < 3, stage < 2
    parts = {
        "weights": size * parameters if whole_weights else size * (parameters / ranks + min(parameters, ZERO3_LIVE)),
        "gradients": 4 * trained / (1 if whole_gradients else ranks)
        + (size * trained if whole_gradients and size < 4 else 0),
    }
    if stage > 0:
        parts["master weights"] = 4 * trained / ranks
        whole_tensor = 4 * shape.largest_tensor  # gathered in float32 when weights are published
        parts["communication"] = 2 * size * min(max(trained, 1e6), ZERO_BUCKET) + whole_tensor
    parts["optimizer"] = 8 * trained / (ranks if stage else 1)
    if config.algorithm.kl_coefficient > 0:
        parts["reference model"] = size * parameters
    return parts


def _shared_batch(load: StepLoad) -> MicroBatchSize:
    """A micro-batch whose groups hold their prompt once."""
    groups, lengths = load.micro.num_groups_at_once, load.lengths
    completions = groups * load.num_completions * lengths.completion
    return MicroBatchSize(groups * lengths.prompt + completions, groups * lengths.image, completions)


def _largest_batch(config: TrainConfig, most: StepLoad) -> MicroBatchSize:
    """The budget filled by completions alone (a group is never split, so it may be larger), with the images of as many
    groups as it holds at the least."""
    group = most.num_completions * most.lengths.row
    tokens = max(group, min(config.learner.micro_batch_tokens, most.micro.num_groups_per_rank * group))
    return MicroBatchSize(tokens, max(most.lengths.image, tokens / most.num_completions), tokens)


def _work_parts(config: TrainConfig, shape: ModelShape, batch: MicroBatchSize, size: int) -> dict[str, float]:
    """What a micro-batch needs while it is computed."""
    learner = config.learner
    checkpointing = learner.gradient_checkpointing
    backward = batch.tokens * layer_bytes(shape.hidden_size, shape.intermediate_size, size) / 2
    return {
        "activations": language_bytes(shape, batch, size, checkpointing) + backward,
        "image tokens": vision_bytes(shape, batch, size, checkpointing),
        "logits chunk": logits_bytes(shape, batch, learner.logprob_chunk_tokens, size),
    }


def driver_memory(on_gpu: bool) -> ActorMemory:
    """The process that runs the loop."""
    mib = GPU_HOST_FOOTPRINT.driver_mib if on_gpu else CPU_FOOTPRINT.driver_mib
    parts = {"libraries": mib * MIB}
    return ActorMemory("driver", 1, False, parts, parts, sum(parts.values()))


def scorer_memory(count: int) -> ActorMemory:
    """A scorer; the child that it scores in is another process of about its size."""
    parts = {"libraries": CPU_FOOTPRINT.scorer_mib * MIB}
    return ActorMemory("scorer", count, False, parts, parts, sum(parts.values()))


def checkpoint_bytes(config: TrainConfig, shape: ModelShape) -> float:
    """One checkpoint: the model's copy, float32 masters and two moments (as `DeepSpeedLearner.state_bytes` has it)."""
    parameters = float(shape.num_parameters)
    trained = parameters - (0 if config.model.train_vision else shape.num_vision_parameters)
    return (2 if config.model.dtype == "bfloat16" else 4) * parameters + 12 * trained


def export_bytes(shape: ModelShape) -> float:
    """The specialist, float32."""
    return 4.0 * shape.num_parameters
