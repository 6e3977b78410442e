"""The plan of one evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinyr1v_ray.cluster.assignment import assign_nodes
from tinyr1v_ray.cluster.placement import plan_engines
from tinyr1v_ray.cluster.shape import ClusterShape
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.evaluation.benchmarks.registry import MINIATURE, find_benchmarks
from tinyr1v_ray.models.shape import ModelShape
from tinyr1v_ray.planning.assumptions import (
    MEAN_COMPLETION_SHARE,
    MEAN_COMPLETION_TOKENS,
    MEAN_IMAGE_SHARE,
    MEAN_TEXT_TOKENS,
    MINIATURE_TOKENS,
)
from tinyr1v_ray.planning.fits import (
    MAX_NODES,
    engine_problems,
    fewer,
    gpu_problems,
    host_problems,
    nearest_change,
    placement_problems,
    room_problems,
)
from tinyr1v_ray.planning.memory import EngineNeeds, driver_memory, engine_memory
from tinyr1v_ray.planning.plan import Plan, PlanRequest, Section
from tinyr1v_ray.planning.shapes import find_shape, stand_in_note
from tinyr1v_ray.planning.throughput import UNKNOWN, stated_throughput
from tinyr1v_ray.planning.train_sections import (
    memory_metrics,
    memory_sections,
    placement_metrics,
    placement_section,
)
from tinyr1v_ray.planning.units import count, duration
from tinyr1v_ray.planning.workload import Lengths, check_completion

PUBLIC_ITEMS = {
    "mathvista": 1000,
    "mathvision": 304,
    "mathverse": 3940,
    "wemath": 1740,
    "chartqa": 2500,
    "charxiv": 1000,
    "ocrbench": 1000,
    "ocr_reasoning": 1069,
    "mme": 2374,
    "mmstar": 1500,
}
"""Rows of the TSV files made for VLMEvalKit (the small splits where there are two): not counted, nothing is read."""
MINIATURE_ITEMS = 1000
UNKNOWN_ITEMS = 1000


def plan_evaluation(request: PlanRequest, cluster: ClusterShape) -> Plan:
    """The plan of a `tinyr1v evaluate` configuration; raises ConfigError and ModelError."""
    config = parse_settings(EvaluateConfig, dict(request.tree), request.overrides)
    return plan_evaluate_settings(config, request, cluster)


def plan_evaluate_settings(config: EvaluateConfig, request: PlanRequest, cluster: ClusterShape) -> Plan:
    """The same of settings that are resolved already."""
    shape = find_shape(config.model.path, request.shape, config.model.family)
    items, lengths = count_items(config), _lengths(config, shape, request.expect)
    problems = _problems(config, shape, cluster, lengths, items)
    placement, needs = plan_engines(config.engine), _needs(config, lengths, items)
    memory = engine_memory(needs, shape, cluster.accelerator)
    engine, rows = config.engine, sum(items.values()) * config.sampling.num_samples
    known = stated_throughput(request)
    answer_s = rows * lengths.completion / known.generate if known.generate else None
    gpu_hours = engine.num_engines * engine.num_gpus * (answer_s or 0.0) / 3600
    memories = [driver_memory(bool(engine.num_gpus)), memory]
    assignment = assign_nodes(placement, cluster)
    return Plan(
        kind="evaluate",
        title=f"evaluation of {config.model.path} on {', '.join(config.benchmarks)}",
        cluster=cluster,
        problems=problems,
        change=_change(config, cluster, shape, lengths, items) if problems else "",
        sections=(
            _answers_section(config, items, lengths, answer_s, gpu_hours),
            placement_section(assignment, cluster),
            *memory_sections(memories),
        ),
        metrics={
            "num_parameters": shape.num_parameters,
            "items": items,
            "answers": rows,
            **({"seconds": {"run": answer_s}, "gpu_hours": gpu_hours} if answer_s else {}),
            "placement": placement_metrics(assignment),
            "memory": [memory_metrics(each) for each in memories],
        },
        settings=config.model_dump(mode="json"),
        warnings=stand_in_note(config.model.path, shape),
    )


def count_items(config: EvaluateConfig) -> dict[str, int]:
    """Items of each benchmark by the public sizes; raises ConfigError for an unknown benchmark."""
    items = {}
    for name in (benchmark.name for benchmark in find_benchmarks(config.benchmarks, config.user)):
        whole = MINIATURE_ITEMS if name.startswith(MINIATURE) else PUBLIC_ITEMS.get(name, UNKNOWN_ITEMS)
        items[name] = min(whole, config.num_items or whole)
    return items


def _answers_section(
    config: EvaluateConfig, items: Mapping[str, int], lengths: Lengths, answer_s: float | None, gpu_hours: float
) -> Section:
    rows = sum(items.values()) * config.sampling.num_samples
    most = rows * config.sampling.max_tokens
    table = [
        ("answering", duration(answer_s), "start apart; scoring beside it") if answer_s else ("time", "", UNKNOWN),
        *([("GPU-hours", f"{gpu_hours:,.1f}", "")] if gpu_hours else []),
        ("items", count(sum(items.values())), f"{len(items)} benchmarks, by their public sizes"),
        ("answers", count(rows), f"{config.sampling.num_samples} to an item"),
        ("tokens of a prompt", count(lengths.prompt), f"expected, {count(lengths.image)} of them image"),
        ("answer tokens", count(rows * lengths.completion), f"expected, at most {count(most)}"),
    ]
    return Section("Answers", tuple(table), numeric=(1,))


def _lengths(config: EvaluateConfig, shape: ModelShape, expect: Mapping[str, float]) -> Lengths:
    room = config.model.max_length - config.sampling.max_tokens
    own = [MINIATURE_TOKENS.get(name.removeprefix(MINIATURE)) for name in config.benchmarks]
    known = [pair for pair in own if pair]
    bound = min(shape.vision.max_tokens(config.model.max_pixels), room)
    image = min(sum(pair[1] for pair in known) / len(known), bound) if known else MEAN_IMAGE_SHARE * bound
    prompt = sum(pair[0] for pair in known) / len(known) if known else image + MEAN_TEXT_TOKENS
    assumed = min(MEAN_COMPLETION_SHARE * config.sampling.max_tokens, MEAN_COMPLETION_TOKENS)
    completion = expect.get("completion", assumed)
    check_completion(completion, "sampling.max_tokens", config.sampling.max_tokens)
    return Lengths(expect.get("prompt", min(prompt, room)), expect.get("image", image), completion)


def _needs(config: EvaluateConfig, lengths: Lengths, items: Mapping[str, int]) -> EngineNeeds:
    engine = config.engine
    return EngineNeeds(
        dtype=config.model.dtype,
        num_gpus=engine.num_gpus,
        count=engine.num_engines,
        max_length=config.model.max_length,
        mean_length=lengths.row,
        max_num_sequences=engine.max_num_sequences,
        kv_cache_gib=engine.kv_cache_gib,
        gpu_memory_share=engine.gpu_memory_share,
        queued_requests=min(engine.max_num_sequences, sum(items.values())),
        image_tokens=lengths.image,
    )


def _problems(
    config: EvaluateConfig, shape: ModelShape, cluster: ClusterShape, lengths: Lengths, items: Mapping[str, int]
) -> tuple[str, ...]:
    placement, needs = plan_engines(config.engine), _needs(config, lengths, items)
    memories = {
        "driver": driver_memory(bool(config.engine.num_gpus)),
        "rollout": engine_memory(needs, shape, cluster.accelerator),
    }
    assignment = assign_nodes(placement, cluster)
    found = placement_problems(placement, cluster, None) or room_problems(assignment)
    found += engine_problems(needs, shape, memories["rollout"])
    found += gpu_problems(assignment, memories, cluster)
    return tuple(found + host_problems(assignment, memories, cluster, 0.0))


def _change(
    config: EvaluateConfig, cluster: ClusterShape, shape: ModelShape, lengths: Lengths, items: Mapping[str, int]
) -> str:
    engine, tree = config.engine, config.model_dump(mode="json")
    most = engine.num_engines
    numbers = range(most - 1, 0, -1) if most <= MAX_NODES else fewer(most)
    candidates: list[tuple[str, ...]] = [(f"engine.num_engines={number}",) for number in numbers]
    if engine.num_gpus:
        candidates += [("engine.num_gpus=2", f"engine.num_engines={max(1, engine.num_engines // 2)}")]
    candidates += [("engine.gpu_memory_share=0.8",), ("engine.num_cpus=0.8",)]

    def still_wrong(overrides: Sequence[str], larger: ClusterShape) -> bool:
        changed = parse_settings(EvaluateConfig, tree, overrides)
        return bool(_problems(changed, shape, larger, lengths, items))

    return nearest_change(candidates, cluster, still_wrong)
