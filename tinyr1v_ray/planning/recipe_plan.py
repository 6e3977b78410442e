"""The plan of a whole recipe: every stage of its graph planned as what it is, and summed up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyr1v_ray.cluster.shape import ClusterShape
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.jobs.recipe.dial_stage import DialStage
from tinyr1v_ray.jobs.recipe.evaluate_stage import EvaluateStage
from tinyr1v_ray.jobs.recipe.graph import build_graph
from tinyr1v_ray.jobs.recipe.merge_stage import MergeStage
from tinyr1v_ray.jobs.recipe.stage import AnyStage
from tinyr1v_ray.jobs.recipe.train_stage import TrainStage
from tinyr1v_ray.planning.dial_plan import plan_dial_point
from tinyr1v_ray.planning.evaluate_plan import plan_evaluate_settings
from tinyr1v_ray.planning.merge_plan import plan_merge_settings
from tinyr1v_ray.planning.plan import Plan, PlanRequest, Section
from tinyr1v_ray.planning.throughput import UNKNOWN
from tinyr1v_ray.planning.train_plan import plan_train_settings
from tinyr1v_ray.planning.units import duration, several

_SIDE_BY_SIDE = "stages run side by side where the cluster has room"


def plan_recipe(request: PlanRequest, cluster: ClusterShape) -> Plan:
    """The plan of a `tinyr1v run` configuration; raises what building its graph raises."""
    config = parse_settings(PipelineConfig, dict(request.tree), request.overrides)
    of_base = replace(request, shape=request.shape or config.base)
    stages = build_graph(config, read_inputs=False).stages
    plans = {stage.id: _PLANNERS[type(stage)](stage.settings, of_base, cluster) for stage in stages}
    seconds = {name: plan.metrics["seconds"]["run"] for name, plan in plans.items() if "seconds" in plan.metrics}
    gpu_hours = sum(float(plan.metrics.get("gpu_hours", 0.0)) for plan in plans.values())
    whole_s = sum(seconds.values()) if len(seconds) == len(plans) else None
    wrong = {name: plan for name, plan in plans.items() if plan.problems}
    rows = [
        ("the recipe", duration(whole_s) if whole_s else "", f"{several(len(plans), 'stage')} one after the other"),
        *((f"  {kind}", _time(each), several(len(each), "stage")) for kind, each in _by_kind(plans, seconds).items()),
        *([("GPU-hours", f"{gpu_hours:,.1f}", "")] if gpu_hours and whole_s else []),
    ]
    first = next(iter(wrong.values()), None)
    return Plan(
        kind="recipe",
        title=f"{config.name}: {len(config.trainings)} trainings, {len(config.merge.methods)} merged models, "
        f"{several(len(config.seeds), 'seed')}, from {config.base}",
        cluster=cluster,
        problems=tuple(f"{name}: {problem}" for name, plan in wrong.items() for problem in plan.problems),
        change=f"in {next(iter(wrong))}: {first.change}" if first is not None and first.change else "",
        sections=(
            Section(
                "Time",
                tuple(rows),
                numeric=(1,),
                footer=_SIDE_BY_SIDE if whole_s else UNKNOWN,
            ),
            Section("Stages", tuple(_stage_rows(plans, seconds)), ("", "seeds", "each"), (1, 2)),
            *_example(plans),
        ),
        metrics={
            "stages": {name: dict(plan.metrics) for name, plan in plans.items()},
            **({"seconds": {"run": whole_s}, "gpu_hours": gpu_hours} if whole_s else {}),
        },
        settings=config.model_dump(mode="json"),
    )


_PLANNERS: Mapping[type[AnyStage], Callable[[Any, PlanRequest, ClusterShape], Plan]] = {
    TrainStage: plan_train_settings,
    MergeStage: plan_merge_settings,
    EvaluateStage: plan_evaluate_settings,
    DialStage: plan_dial_point,
}


def _stage_rows(plans: dict[str, Plan], seconds: dict[str, float]) -> list[tuple[str, str, str]]:
    """One row for the seeds of a stage."""
    names: dict[str, list[float | None]] = {}
    for stage in plans:
        names.setdefault(stage.rpartition("/")[0], []).append(seconds.get(stage))
    return [(name, str(len(each)), _time(each, mean=True)) for name, each in names.items()]


def _by_kind(plans: dict[str, Plan], seconds: dict[str, float]) -> dict[str, list[float | None]]:
    kinds: dict[str, list[float | None]] = {}
    for stage, plan in plans.items():
        kinds.setdefault(plan.kind, []).append(seconds.get(stage))
    return kinds


def _time(each: list[float | None], mean: bool = False) -> str:
    """Of several stages together or on average; empty where one is not known."""
    known = [seconds for seconds in each if seconds is not None]
    if len(known) < len(each):
        return ""
    return duration(sum(known) / (len(known) if mean else 1))


def _example(plans: dict[str, Plan]) -> tuple[Section, ...]:
    """Placement and memory of the first training."""
    name, plan = next(((name, plan) for name, plan in plans.items() if plan.kind == "train"), ("", None))
    wanted = ("Placement", "Memory of an actor", "Main memory")
    if plan is None:
        return ()
    return tuple(
        replace(section, title=f"{section.title}, {Path(name).parent.name}")
        for section in plan.sections
        if section.title in wanted
    )
