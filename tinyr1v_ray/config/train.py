"""The settings of `tinyr1v train`. Every default is here and nowhere else; depth is at most three."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tinyr1v_ray.config.algorithm import AlgorithmSettings
from tinyr1v_ray.config.base import MAX_ACTORS, MAX_SEED, Settings
from tinyr1v_ray.config.folders import Folder
from tinyr1v_ray.config.surroundings import CheckpointSettings, ClusterSettings, TelemetrySettings, WeightSettings

Share = Annotated[float, Field(ge=0.0, le=1.0)]
ActorCount = Annotated[int, Field(ge=1, le=MAX_ACTORS)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class RunSettings(Settings):
    """Where a run lives, how long it is, and its seed."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run's folder: letters, digits, dot, underscore and dash."""
    folder: Folder = "runs"
    """Folder that holds the runs; shared by all nodes."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Seed of data order, sampling and initialisation."""
    num_steps: PositiveInt = 120
    """Updates of the policy (paper's framework: 120)."""
    num_prompts_per_step: PositiveInt = 512
    """Groups trained on in one step (P)."""
    max_staleness: Annotated[int, Field(ge=0, le=64)] = 0
    """How many versions late a group may be trained; 0 is on-policy."""


class ModelSettings(Settings):
    """The base model."""

    path: Folder = "miniature"
    """Folder or hub name of a model (Qwen2.5-VL); `miniature` is the one that the package ships."""
    family: str = ""
    """Family of your own as `package.module:class`; empty: one that the package knows."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of engine and learner; master weights are float32 in either case."""
    max_length: PositiveInt = 4096
    """Prompt and completion together, tokens."""
    min_pixels: PositiveInt = 3136
    """Smallest image after resizing, pixels; the same in engine and learner."""
    max_pixels: PositiveInt = 1003520
    """Largest image after resizing, pixels."""
    train_vision: bool = True
    """Whether the vision tower is trained (the paper's framework does)."""
    trust_remote_code: Literal[False] = False
    """Code from a model folder is never run."""

    @model_validator(mode="after")
    def _pixel_limits_ordered(self) -> Self:
        if self.min_pixels > self.max_pixels:
            raise ValueError(
                f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}; it may not be; swap them"
            )
        return self


class DataSettings(Settings):
    """Where prompts come from and which column means what."""

    train: tuple[str, ...] = ()
    """Sources: parquet or jsonl files, image folders, hub names (`owner/name:split`), or `miniature:DOMAIN`."""
    evaluation: tuple[str, ...] = ()
    """Held-out sources, in the same forms."""
    domain: str = "math"
    """Domain of sources that have no domain column; decides how answers are scored."""
    question_column: str = "question"
    """Column with the question: a text, or a conversation whose last message it is; a dot leads into a struct."""
    answer_column: str = "answer"
    """Column with the reference answer; of a list, each is right. A dot leads in: `reward_model.ground_truth`."""
    image_column: str = "image"
    """Column with one image, a list of images or nothing; empty when no source has images outside of conversations."""
    id_column: str = "prompt_id"
    """Column with stable ids; empty: ids are made from the content."""
    domain_column: str = "domain"
    """Column with the domain; empty: `domain` holds for all."""
    difficulty_column: str = "difficulty"
    """Column with a difficulty to report by; empty: none."""
    system_prompt: str = ""
    """System turn; empty: the chat template's own default."""
    question_template: str = "{question}"
    """How a question is put to the model; holds {question} once."""
    shuffle: bool = True
    """Shuffle each epoch by seed and epoch."""
    max_skipped_share: Share = 0.05
    """Largest share of items that are left out (unreadable, empty, too long, twice) before the run is refused."""
    max_image_megapixels: PositiveFloat = 64.0
    """Images with more pixels than this are not decoded (decompression bombs)."""

    @model_validator(mode="after")
    def _template_has_a_place(self) -> Self:
        if self.question_template.count("{question}") != 1:
            raise ValueError(
                f"question_template {self.question_template!r} must hold {{question}} once; add the placeholder"
            )
        return self


class EvaluationSettings(Settings):
    """Held-out items: the summary before and after training, and a look on the way."""

    num_items: NonNegativeInt = 1000
    """Held-out items of the summary; 0 leaves it out."""
    every_n_steps: NonNegativeInt = 0
    """Evaluate a slice after every so many steps and keep the best model; 0: never."""
    num_slice_items: PositiveInt = 100
    """Held-out items of the slice, the first of those of the summary."""
    temperature: NonNegativeFloat = 1.0
    """Sampling temperature; 0 is greedy."""


class RolloutSettings(Settings):
    """How completions are sampled."""

    num_engines: ActorCount = 1
    """vLLM engines, each a Ray actor."""
    num_completions: PositiveInt = 5
    """Completions of a prompt (G); at least 2, since an advantage compares within the group."""
    max_tokens: PositiveInt = 2048
    """Longest completion, tokens."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling; 1 keeps all tokens, as the importance weights assume."""
    deterministic: bool = False
    """Admit the requests of a step as one batch, so that a resumed run repeats an uninterrupted one."""
    num_cpus_per_engine: PositiveFloat = 1.0
    """CPU cores reserved for an engine."""
    num_gpus_per_engine: NonNegativeFloat = 0.0
    """GPUs of an engine; above 1 it is tensor-parallel over that many."""
    max_num_sequences: PositiveInt = 256
    """Sequences decoded at once by an engine."""
    kv_cache_gib: PositiveFloat = 1.0
    """KV cache of an engine on the CPU, GiB."""
    gpu_memory_share: Share = 0.9
    """Share of a GPU's memory that an engine takes."""
    num_threads: NonNegativeInt = 0
    """Threads of an engine on the CPU; 0: one per reserved core."""
    start_timeout_s: PositiveFloat = 600.0
    """Longest start of an engine."""
    group_timeout_s: PositiveFloat = 600.0
    """Longest wait for a group before its engine counts as hung."""
    max_restarts: NonNegativeInt = 3
    """How often a dead engine is replaced before the run ends."""

    @model_validator(mode="after")
    def _groups_can_be_compared(self) -> Self:
        if self.num_completions < 2:
            raise ValueError(
                "num_completions is 1; advantages compare the completions of a group, so it must be at least 2; "
                "set rollout.num_completions=2 or more"
            )
        if self.num_gpus_per_engine > 1 and not float(self.num_gpus_per_engine).is_integer():
            raise ValueError(f"num_gpus_per_engine is {self.num_gpus_per_engine}; above 1 it must be whole; round it")
        return self


class RewardSettings(Settings):
    """How answers are scored."""

    function: str = ""
    """`package.module:function` of a user's own scoring function; empty: the domain's own."""
    format_weight: Share = 0.1
    """Weight of the format term; the answer term gets the rest."""
    format_weights: dict[str, Share] = Field(default_factory=dict)
    """Format weight of single domains, by name."""
    relative_tolerance: NonNegativeFloat = 0.05
    """Relaxed numeric match of structured data (ChartQA: 5 %)."""
    num_scorers: ActorCount = 1
    """Scorer actors."""
    num_cpus_per_scorer: NonNegativeFloat = 0.1
    """CPU cores reserved for a scorer."""
    item_timeout_s: PositiveFloat = 10.0
    """Hard deadline of one answer; then the scoring process is killed and the answer marked unscored."""
    max_unscored_share: Share = 0.05
    """Largest share of unscored answers in a step before the run stops."""


class LearnerSettings(Settings):
    """The DeepSpeed learner."""

    num_ranks: ActorCount = 1
    """Data-parallel ranks, each a Ray actor."""
    zero_stage: Literal[0, 2, 3] = 2
    """DeepSpeed ZeRO stage."""
    num_minibatches: PositiveInt = 1
    """Optimizer steps an update; the groups of a step are divided among them in order."""
    micro_batch_tokens: PositiveInt = 16384
    """Token budget of a forward pass on a rank; a group is never split, so it may exceed the budget alone."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    logprob_chunk_tokens: PositiveInt = 1024
    """Positions whose logits [chunk, V] are held in float32 at once."""
    learning_rate: PositiveFloat = 1e-6
    """AdamW learning rate."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW weight decay."""
    adam_betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW betas, at least 0 and below 1."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or down to zero at `run.num_steps`."""
    num_warmup_steps: NonNegativeInt = 0
    """Optimizer steps of linear warm-up."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradient clip."""
    num_cpus_per_rank: PositiveFloat = 1.0
    """CPU cores reserved for a rank."""
    num_gpus_per_rank: NonNegativeFloat = 0.0
    """GPUs of a rank."""
    num_threads: NonNegativeInt = 0
    """Threads of a rank on the CPU; 0: one per reserved core."""
    start_timeout_s: PositiveFloat = 900.0
    """Longest start of the learner group."""
    update_timeout_s: PositiveFloat = 3600.0
    """Longest update."""
    max_restarts: NonNegativeInt = 3
    """How often a dead learner group is restarted from the last checkpoint."""


class TrainConfig(Settings):
    """One LIPO training run of one specialist."""

    run: RunSettings
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward: RewardSettings = RewardSettings()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    learner: LearnerSettings = LearnerSettings()
    weights: WeightSettings = WeightSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if not self.data.train:
            raise ValueError("data.train is empty; a run needs at least one source; name a file or miniature:ocr")
        if self.evaluation.every_n_steps and not self.data.evaluation:
            raise ValueError(
                f"evaluation.every_n_steps is {self.evaluation.every_n_steps} and data.evaluation is empty; a look on "
                "the way needs held-out items; name a source in data.evaluation"
            )
        if self.rollout.max_tokens >= self.model.max_length:
            raise ValueError(
                f"rollout.max_tokens {self.rollout.max_tokens} leaves no room for a prompt in model.max_length "
                f"{self.model.max_length}; it must be smaller; lower it"
            )
        if self.run.num_prompts_per_step % self.learner.num_minibatches:
            raise ValueError(
                f"run.num_prompts_per_step {self.run.num_prompts_per_step} is not a multiple of "
                f"learner.num_minibatches {self.learner.num_minibatches}; each minibatch gets the same number of "
                "groups; change one of them"
            )
        if self.rollout.deterministic and self.run.max_staleness:
            raise ValueError(
                f"rollout.deterministic with run.max_staleness {self.run.max_staleness}; a repeatable run is "
                "on-policy; set run.max_staleness=0"
            )
        if self.rollout.deterministic and self.algorithm.name == "dapo" and self.algorithm.dapo.dynamic_sampling:
            raise ValueError(
                "rollout.deterministic with DAPO's dynamic sampling; a repeatable run admits whole steps; "
                "set algorithm.dapo.dynamic_sampling=false"
            )
        if (self.weights.backend == "nccl") != (self.rollout.num_gpus_per_engine > 0):
            raise ValueError(
                f"weights.backend {self.weights.backend} with {self.rollout.num_gpus_per_engine} GPUs per engine; "
                "nccl is for engines on GPUs and cpu_file for engines on the CPU; change one of them"
            )
        return self
