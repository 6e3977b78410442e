"""The plan of one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinyr1v_ray.cluster.shape import Accelerator, ClusterShape
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import ConfigError, PlacementError
from tinyr1v_ray.planning.fits import fewer, gpu_problems, nearest_change
from tinyr1v_ray.planning.plan import Plan, PlanRequest
from tinyr1v_ray.planning.shapes import find_shape, stand_in_note
from tinyr1v_ray.planning.throughput import StepTime, read_recorded, stated_throughput, train_time
from tinyr1v_ray.planning.train_design import TrainDesign, design_training
from tinyr1v_ray.planning.train_sections import train_metrics, train_sections


def plan_training(request: PlanRequest, cluster: ClusterShape) -> Plan:
    """The plan of a `tinyr1v train` configuration; raises ConfigError and ModelError."""
    return plan_train_settings(parse_settings(TrainConfig, dict(request.tree), request.overrides), request, cluster)


def plan_train_settings(config: TrainConfig, request: PlanRequest, cluster: ClusterShape) -> Plan:
    """The same of settings that are resolved already."""
    shape = find_shape(config.model.path, request.shape, config.model.family)
    known, expect = stated_throughput(request), dict(request.expect)
    if request.recorded is not None:
        known, recorded = read_recorded(request.recorded, config)
        expect = {**recorded, **expect}
    design = design_training(config, shape, cluster, expect)
    time = train_time(config, design.work.expected, known)
    return Plan(
        kind="train",
        title=f"{config.run.name}: {config.algorithm.name} on {config.model.path}",
        cluster=cluster,
        problems=design.problems,
        change=_change(design, expect) if design.problems else "",
        sections=train_sections(design, time),
        metrics=train_metrics(design, time),
        settings=config.model_dump(mode="json"),
        warnings=stand_in_note(config.model.path, shape) + _warnings(design, time),
    )


def check_shared_gpus(config: TrainConfig, gpu: Accelerator) -> None:
    """Raise PlacementError where such a GPU cannot hold an engine and the rank that it takes turns with."""
    roomy = ClusterShape(config.rollout.num_engines, max(1, int(config.rollout.num_gpus_per_engine)), gpu, 4096, 1e6)
    design = design_training(config, find_shape(config.model.path, own_family=config.model.family), roomy, {})
    if found := gpu_problems(design.assignment, design.memories, roomy):
        raise PlacementError(
            f"{found[0]}; with placement.colocate one works there while the other rests; lower "
            "rollout.gpu_memory_share, take more ranks, or ask tinyr1v plan"
        )


def _warnings(design: TrainDesign, time: StepTime | None) -> tuple[str, ...]:
    """What fits and is worth knowing."""
    config, lines = design.config, []
    learner = design.memories["learner"]
    if not learner.on_gpu and learner.most_bytes > 1.5 * learner.expected_bytes:
        lines.append(
            "a learner rank could need much more than expected if every completion were as long as the settings "
            "allow; lower learner.micro_batch_tokens to bound it"
        )
    if config.rollout.num_gpus_per_engine and not config.run.max_staleness and not config.placement.colocate:
        busy_s = max(time.generate_s, time.learn_s) if time else 0.0
        idle = f", each idle at least {1 - busy_s / time.step_s:.0%} of a step" if time else ""
        lines.append(
            f"on-policy, engines and learner take turns{idle}; run.max_staleness=1 lets them overlap, and with "
            "placement.colocate=true (and as many engines as ranks) both compute on all GPUs"
        )
    return tuple(lines)


def _change(design: TrainDesign, expect: Mapping[str, float]) -> str:
    """The nearest change, by planning again."""
    if design.cluster.accelerator is None and any(actor.num_gpus for actor in design.placement.actors):
        return "--cluster 1x8xH100-80GB, or another one with GPUs"
    tree = design.config.model_dump(mode="json")

    def still_wrong(overrides: Sequence[str], cluster: ClusterShape) -> bool:
        try:
            config = parse_settings(TrainConfig, tree, overrides)
        except ConfigError:
            return True
        return bool(design_training(config, design.shape, cluster, expect).problems)

    return nearest_change(_candidates(design.config), design.cluster, still_wrong)


def _candidates(config: TrainConfig) -> list[tuple[str, ...]]:
    """Changes in the order of how little they change the result: first those that change nothing but speed."""
    return [*_learner_candidates(config), *_engine_candidates(config), *_count_candidates(config), *_last(config)]


def _learner_candidates(config: TrainConfig) -> list[tuple[str, ...]]:
    """What makes a learner rank smaller and leaves its arithmetic as it is."""
    learner = config.learner
    found: list[tuple[str, ...]] = []
    if not learner.gradient_checkpointing:
        found.append(("learner.gradient_checkpointing=true",))
    if learner.zero_stage < 3 and learner.num_ranks > 1:
        found.append(("learner.zero_stage=3",))
    found += [(f"learner.micro_batch_tokens={max(1, learner.micro_batch_tokens // part)}",) for part in (2, 4)]
    return [*found, (f"learner.logprob_chunk_tokens={max(1, learner.logprob_chunk_tokens // 4)}",)]


def _engine_candidates(config: TrainConfig) -> list[tuple[str, ...]]:
    """Less memory for an engine, or more GPUs."""
    rollout = config.rollout
    if not rollout.num_gpus_per_engine:
        found: list[tuple[str, ...]] = [("rollout.kv_cache_gib=1",)] if rollout.kv_cache_gib > 1 else []
        return [*found, ("rollout.num_cpus_per_engine=0.8", "learner.num_cpus_per_rank=0.8")]
    shares = (0.8, 0.6, 0.4) if config.placement.colocate else (0.8, 0.6)
    found = [(f"rollout.gpu_memory_share={share}",) for share in shares if share < rollout.gpu_memory_share]
    found += [
        (f"rollout.num_gpus_per_engine={gpus}", f"rollout.num_engines={max(1, rollout.num_engines // gpus)}")
        for gpus in (2, 4)
        if gpus > rollout.num_gpus_per_engine
    ]
    return [*found, ("rollout.num_gpus_per_engine=2",)]


def _count_candidates(config: TrainConfig) -> list[tuple[str, ...]]:
    """GPUs that go from engines to the learner, then fewer of each, then more ranks (on more nodes)."""
    engines, ranks = config.rollout.num_engines, config.learner.num_ranks
    if config.placement.colocate:
        both = [(engines * times, ranks * times) for times in (2, 4)]
        both += [(left, ranks * left // engines) for left in fewer(engines)]
        return [(f"rollout.num_engines={few}", f"learner.num_ranks={of_them}") for few, of_them in both]
    found: list[tuple[str, ...]] = [
        (f"rollout.num_engines={engines - moved}", f"learner.num_ranks={ranks + moved}")
        for moved in (engines - left for left in fewer(engines))
    ]
    if engines > 1 and ranks > 1:
        found.append((f"rollout.num_engines={engines // 2}", f"learner.num_ranks={ranks // 2}"))
    found += [(f"rollout.num_engines={number}",) for number in fewer(engines)]
    found += [(f"learner.num_ranks={number}",) for number in fewer(ranks)]
    return found + [(f"learner.num_ranks={times * ranks}",) for times in (2, 4)]


def _last(config: TrainConfig) -> list[tuple[str, ...]]:
    """What changes the result: arithmetic, length, the reference model."""
    rollout, model = config.rollout, config.model
    found: list[tuple[str, ...]] = []
    if model.dtype == "float32" and config.learner.num_gpus_per_rank:
        found.append(("model.dtype=bfloat16",))
    for part in (2, 4):
        shorter = rollout.max_tokens // part
        length = model.max_length - rollout.max_tokens + shorter
        found.append((f"rollout.max_tokens={shorter}", f"model.max_length={length}"))
    if config.algorithm.kl_coefficient:
        found.append(("algorithm.kl_coefficient=0",))
    return found
