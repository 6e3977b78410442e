"""Every YAML in configs/ is parsed and planned, fits the cluster it is meant for; no number is missing."""

import json
import math
from pathlib import Path

import pytest

from tinyr1v_ray.cluster.shape import parse_cluster
from tinyr1v_ray.config.base import parse_settings, read_yaml
from tinyr1v_ray.config.kinds import SCHEMAS, kind_of_config, read_config
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.planning.make import make_plan
from tinyr1v_ray.planning.plan import PlanRequest, plan_json, plan_lines

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
EIGHT_GPUS = "1x8xH100-80GB"
TWO_CORES = "1xcpu2-16GB"


def cluster_of(path):
    """What a file's name promises: GPUs for 8gpu, 3b and the ten benchmarks, two cores for the miniature."""
    return parse_cluster(TWO_CORES if "miniature" in path.name else EIGHT_GPUS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_parsed_and_planned(path, monkeypatch):
    monkeypatch.chdir(path.parents[1])
    tree = read_yaml(path)
    kind = kind_of_config(tree, path.name)
    assert isinstance(read_config(path, []), SCHEMAS[kind])
    plan = make_plan(PlanRequest(path, tree, cluster=cluster_of(path)))
    assert plan.kind == kind
    assert plan.problems == ()
    metrics = json.loads(plan_json(plan))
    assert metrics["fits"] and metrics["cluster"]["shape"] == str(cluster_of(path))
    timed = make_plan(PlanRequest(path, tree, cluster=cluster_of(path), throughput={"generate": 1e4, "learn": 1e4}))
    assert math.isfinite(timed.metrics["seconds"]["run"]) and timed.metrics["seconds"]["run"] > 0
    lines = plan_lines(plan)
    assert lines[2] == "fits" and not [line for line in lines if "nan" in line.split() or "inf" in line.split()]


def test_the_three_specialists_have_the_papers_hyper_parameters():
    of_the_paper = {
        ("run", "num_prompts_per_step"): 512, ("run", "num_steps"): 120, ("run", "max_staleness"): 0,
        ("rollout", "num_completions"): 5, ("rollout", "max_tokens"): 2048, ("rollout", "temperature"): 1.0,
        ("rollout", "top_p"): 1.0, ("algorithm", "name"): "lipo", ("algorithm", "clip_low"): 0.2,
        ("algorithm", "clip_high"): 0.3, ("algorithm", "kl_coefficient"): 0.01, ("learner", "num_minibatches"): 4,
        ("learner", "learning_rate"): 1e-6, ("learner", "weight_decay"): 0.01, ("learner", "max_grad_norm"): 1.0,
        ("learner", "zero_stage"): 3, ("model", "dtype"): "bfloat16", ("model", "train_vision"): True,
        ("model", "path"): "Qwen/Qwen2.5-VL-3B-Instruct", ("weights", "backend"): "ipc",
        ("placement", "colocate"): True,
    }  # fmt: skip
    for domain in ("math", "structure", "ocr"):
        [path] = [path for path in CONFIGS if path.stem == f"lipo_{domain}_8gpu"]
        config = parse_settings(TrainConfig, read_yaml(path))
        assert config.data.domain == domain
        assert config.model.max_length - config.rollout.max_tokens == 2048, "tokens for the prompt"
        for (section, name), value in of_the_paper.items():
            assert getattr(getattr(config, section), name) == value, f"{path.name}: {section}.{name}"


def test_the_merge_and_the_evaluation_go_on_where_the_specialists_end():
    named = {path.stem: read_yaml(path) for path in CONFIGS}
    merge = named["merge_tiny_r1v_3b"]
    runs = [named[f"lipo_{domain}_8gpu"]["run"]["name"] for domain in ("math", "structure", "ocr")]
    assert merge["experts"] == [f"runs/{run}/export" for run in runs]
    assert named["evaluate_ten_benchmarks"]["model"]["path"] == merge["output"]
