"""Settings of a merge: the AMM paper's switches, one method per output, and the job that carries them out."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tinyr1v_ray.config.base import MAX_ACTORS, MAX_SEED, Settings
from tinyr1v_ray.config.folders import Folder

MethodName = Literal[
    "amm",
    "wudi",
    "average",
    "task_arithmetic",
    "ties",
    "dare",
    "iso_c",
    "ram",
    "ram_plus",
    "resmerge",
    "swudi",
    "function",
]
FloatName = Literal["float32", "float64"]


class AmmConfig(Settings):
    """Adaptive Model Merging (arXiv 2510.08987). [C] is certain from the paper, [R] is this project's reading."""

    importance: Literal["norm", "squared_norm", "uniform"] = "norm"
    """alpha_i, inherent importance: proportional to ||tau_i|| [C in words], its square, or 1."""
    compatibility: Literal["softmax", "shifted_cosine", "none"] = "softmax"
    """beta_i(t), detached, from cos(m_t, tau_i) at every step [C in words; the forms are R]."""
    temperature: float = Field(default=1.0, gt=0)
    """T of the softmax."""
    projection: Literal["per_expert", "span", "none"] = "per_expert"
    """Gradient-projection penalty R [C in words; the forms are R]."""
    projection_weight: float = Field(default=0.1, ge=0)
    """lambda relative to L_0 / R_0 of step 0 [R]."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Adam's step; see `learning_rate_mode`."""
    learning_rate_mode: Literal["relative", "absolute"] = "relative"
    """`relative` multiplies by the root mean square of the task vectors [R]; `absolute` is WUDI's."""
    steps: int = Field(default=300, ge=1)
    """Steps of Adam."""
    initial: Literal["sum", "mean"] = "sum"
    """m_0."""
    dtype: FloatName = "float32"
    """Arithmetic; float64 is for tests. A torch.dtype is accepted too."""

    @field_validator("dtype", mode="before")
    @classmethod
    def _name_of_torch_dtype(cls, value: object) -> object:
        return str(value).removeprefix("torch.")


WUDI = AmmConfig(
    importance="uniform", compatibility="none", projection="none", learning_rate=1e-5, learning_rate_mode="absolute"
)
"""WUDI (arXiv 2503.08099) as a special case."""


_USERS: dict[str, tuple[MethodName, ...]] = {
    **dict.fromkeys(("amm", "solver", "flow_time", "form"), ("amm", "wudi")),
    "density": ("ties",),
    "drop": ("dare",),
    "threshold": ("ram", "ram_plus"),
    "rescale": ("ram_plus",),
    **dict.fromkeys(("head_rank", "head_budget", "beta_min", "beta_max"), ("resmerge",)),
    **dict.fromkeys(("filter_time", "keep"), ("swudi",)),
}
"""Settings that some methods alone use."""


class MethodConfig(Settings):
    """One way to merge, and so one output folder."""

    name: MethodName = "amm"
    """How task vectors become one; `function` is a custom one."""
    function: str = ""
    """Of `function`: `package.module:function` that takes the K task vectors of a linear layer (float32 tensors of one
    shape, in the order of the experts) and returns the merged one, the same one every time."""
    amm: AmmConfig = AmmConfig()
    """Settings of `amm` and `wudi`. What is left open takes the method's own default, which for `wudi` is `WUDI`."""
    solver: Literal["adam", "spectral"] = "adam"
    """`adam` is the paper's; `spectral` is the closed form of gradient flow with the weights of step 0."""
    flow_time: float = Field(default=10.0, gt=0)
    """Of `spectral`: how far the flow runs, in units of the time constant at C's mean non-zero eigenvalue."""
    form: Literal["auto", "gram", "thin"] = "auto"
    """How gradients are computed; `auto` takes the cheaper one per tensor. Both give the same answer."""
    scale: float | None = Field(default=None, gt=0)
    """Factor on the merged task vector; not set: 0.3 for task_arithmetic and dare, 1 for the others."""
    density: float = Field(default=0.2, gt=0, le=1)
    """TIES: share of entries kept, by magnitude."""
    drop: float = Field(default=0.2, ge=0, lt=1)
    """DARE: share of entries dropped; the rest is rescaled."""
    threshold: float = Field(default=1e-5, ge=0)
    """RAM and RAM+: an expert has changed an entry that its task vector has above this."""
    rescale: float = Field(default=0.2, ge=0)
    """RAM+: how much larger entries become that one expert alone has changed, where it shares as many others."""
    head_rank: int = Field(default=1, ge=1)
    """ResMerge: leading singular values that are a task vector's head."""
    head_budget: float = Field(default=0.2, ge=0)
    """ResMerge: norm of the heads' correction over the residual backbone's, where all heads agree."""
    beta_min: float = Field(default=0.7, ge=0)
    """ResMerge: exponent of the residuals' coherence where they agree; `beta_max` where they oppose each other."""
    beta_max: float = Field(default=1.0, ge=0)
    """ResMerge: see `beta_min`."""
    filter_time: float = Field(default=300.0, gt=0)
    """SWUDI: t of its soft filter 1 - e^(-lambda t)."""
    keep: float = Field(default=0.85, gt=0, le=1)
    """SWUDI: share of directions, those of the largest lambda, in which it solves."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """DARE's masks and stochastic rounding."""
    vision: Literal["optimise", "average", "base"] = "optimise"
    """Linears of the vision tower and its merger: by the method, averaged, or left as in the base."""
    others: Literal["average", "base", "sum"] | None = None
    """Embeddings, head, norms, biases, convolutions. Not set: the method itself where it works entry by entry
    (average, task_arithmetic, ties, dare, ram, ram_plus), else `average`."""
    output_dtype: Literal["float32", "bfloat16"] = "float32"
    """What is stored; bfloat16 loses much of a small task vector, which `merge.json` measures."""
    rounding: Literal["nearest", "stochastic"] = "nearest"
    """Into bfloat16."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, values: Any) -> Any:
        """Filled in here, so that the resolved settings say what runs and can be read back."""
        if not isinstance(values, dict) or values.get("name") != "wudi":
            return values
        given = values.get("amm", {})
        return {**values, "amm": {**WUDI.model_dump(), **given}} if isinstance(given, dict) else values

    @model_validator(mode="after")
    def _switches_that_would_be_ignored(self) -> Self:
        if bool(self.function) != (self.name == "function"):
            raise ValueError(
                f"function is {self.function!r} with name {self.name}; name=function and a function "
                "(package.module:function) go together; set both or none"
            )
        for setting, users in _USERS.items():
            if self.name not in users and getattr(self, setting) != type(self).model_fields[setting].default:
                raise ValueError(f"{setting} is set for {self.name}; only {' and '.join(users)} use it; remove it")
        if self.beta_min > self.beta_max:
            raise ValueError(f"beta_min {self.beta_min:g} is above beta_max {self.beta_max:g}; swap them")
        if self.solver == "spectral" and self.amm.projection != "none":
            raise ValueError(
                f"solver is spectral with amm.projection {self.amm.projection}; the closed form has no penalty "
                "(which moves the path, not the minimiser); set amm.projection=none"
            )
        if self.rounding == "stochastic" and self.output_dtype == "float32":
            raise ValueError("rounding is stochastic with output_dtype float32; only bfloat16 rounds; change one")
        return self

    @property
    def factor(self) -> float:
        """`scale`, or the method's own."""
        return self.scale if self.scale is not None else {"task_arithmetic": 0.3, "dare": 0.3}.get(self.name, 1.0)


class JobConfig(Settings):
    """Where and how wide the merge runs. None of it, `device` and `threads_per_task` apart, changes a byte."""

    num_workers: int | None = Field(default=None, ge=0, le=MAX_ACTORS)
    """Ray workers; 0 merges in this process; not set: this process where that is quick, else as many as the cluster
    has room for (each takes `threads_per_task` cores and, on cuda, a GPU)."""
    threads_per_task: int = Field(default=1, ge=1)
    """Fixes the order of sums in a tensor's arithmetic, hence the output's bytes."""
    memory_gib: float | None = Field(default=None, gt=0)
    """For all tasks that run at once on a node; not set: 80 % of what is available where the merge is started."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the arithmetic is done."""
    ray_address: str | None = None
    """An existing cluster; not set: a local one for this merge. All nodes must see the folders under the same paths."""
    max_attempts: int = Field(default=3, ge=1)
    """How often one tensor is tried when its worker dies."""
    task_timeout_s: float = Field(default=7200.0, gt=0)
    """Deadline of one tensor task."""

    def workers_on(self, num_cpus: float, num_gpus: float) -> int:
        """Workers that a node has room for.

        >>> JobConfig(threads_per_task=2).workers_on(15, 0), JobConfig(device="cuda").workers_on(96, 8)
        (7, 8)
        """
        by_cores = int(num_cpus) // self.threads_per_task
        return min(by_cores, int(num_gpus)) if self.device == "cuda" else by_cores


class MergeConfig(Settings):
    """`tinyr1v merge`: experts of one base become one model, without data."""

    base: Folder
    """Folder of the model that every expert started from, or `miniature`."""
    experts: tuple[Folder, ...] = ()
    """Folders: full checkpoints or PEFT LoRA adapters."""
    output: Folder
    """Folder to be created."""
    method: MethodConfig = MethodConfig()
    methods: dict[str, MethodConfig] = Field(default_factory=dict)
    """Several at once: name -> method, each written to output/name; every tensor is read once (above 384 MiB, TIES
    reads it three times and RAM+ twice)."""
    donor: str = "base"
    """Whose config, processor, tokenizer and chat template the output gets: `base`, or an expert's number (from 0)."""
    shard_mib: int = Field(default=4096, ge=1)
    """Upper size of an output shard."""
    resume: bool = True
    """Continue an interrupted merge of the same plan; False starts again from nothing."""
    max_norm_ratio: float = Field(default=0.5, gt=0)
    """An expert whose median ||tau||/||W_0|| is above this is taken for one of another base."""
    min_cosine: float = Field(default=0.8, ge=-1, le=1)
    """Likewise below this median cosine of W_i and W_0."""
    job: JobConfig = JobConfig()

    @model_validator(mode="after")
    def _one_place_for_recipes(self) -> Self:
        if self.methods and self.method != MethodConfig():
            raise ValueError("both method and methods are set; method is for one output; use methods alone")
        for name in self.methods:
            if not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or name.startswith("."):
                raise ValueError(f"methods has the name {name!r}; it becomes a folder; use letters, digits, - and _")
        return self

    @property
    def named_methods(self) -> dict[str, MethodConfig]:
        """Name (empty for the single method, whose output is the folder itself) -> method."""
        return dict(self.methods) or {"": self.method}


class OverlapCase(Settings):
    """How experts with planted overlap are made of real ones (`tinyr1v_ray/merging/planting.py`)."""

    opposed: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the shared part's entries whose sign is turned, in each expert other ones."""
    norm_ratio: float = Field(default=1.0, ge=1)
    """Norm of the first expert's task vectors over the last one's; 1 leaves each its own."""
    rank: int | None = Field(default=None, ge=1)
    """Dimensions of the one row space that all task vectors of a matrix lie in; not set: whatever they have."""
