"""The plan of one point of the conflict dial: its merge, and the answers that are drawn in this process."""

from __future__ import annotations

from dataclasses import replace

from tinyr1v_ray.cluster.shape import ClusterShape
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.pipeline import DialPointSettings
from tinyr1v_ray.planning import assumptions as given
from tinyr1v_ray.planning.merge_plan import plan_merge_settings
from tinyr1v_ray.planning.plan import Plan, PlanRequest


def plan_dial_point(point: DialPointSettings, request: PlanRequest, cluster: ClusterShape) -> Plan:
    """What one point takes."""
    settings = MergeConfig(
        base=point.base, experts=point.experts, output="merged", methods=point.methods, job=point.job
    )
    merge = plan_merge_settings(settings, request, cluster)
    models, domains = 1 + len(point.methods), len(set(point.domains))
    num_answers = point.num_items * (models * domains + len(point.experts))
    answers_s = given.DIAL_ANSWER_S * num_answers + given.DIAL_MODEL_S * (models + len(point.experts))
    seconds = {"run": merge.metrics["seconds"]["run"] + answers_s}
    return replace(
        merge,
        kind="dial",
        title=f"{point.case_name} at {point.overlap:g}: {len(point.experts)} experts, {num_answers:,} answers",
        metrics={**merge.metrics, "seconds": seconds, "answers": num_answers},
        settings=point.model_dump(mode="json"),
    )
