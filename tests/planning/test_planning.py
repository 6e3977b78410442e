"""Plans on named clusters: places, what does not fit and the nearest change, times, and what a user types wrong."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planning_checks import APART

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.cluster.assignment import assign_nodes, ray_resources
from tinyr1v_ray.cluster.host import smallest_gpu
from tinyr1v_ray.cluster.placement import Placement, check_fits, plan_engines, plan_placement
from tinyr1v_ray.cluster.shape import parse_cluster
from tinyr1v_ray.config.base import load_settings, parse_settings, read_yaml
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.kinds import kind_of_config
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import ConfigError, PlacementError, RunFolderError
from tinyr1v_ray.planning.evaluate_plan import count_items
from tinyr1v_ray.planning.make import make_plan, usual_cluster
from tinyr1v_ray.planning.plan import PlanRequest
from tinyr1v_ray.planning.shapes import find_shape
from tinyr1v_ray.planning.throughput import read_recorded
from tinyr1v_ray.planning.train_plan import check_shared_gpus
from tinyr1v_ray.planning.workload import build_workload

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
MATH = CONFIGS / "lipo_math_8gpu.yaml"
OCR = CONFIGS / "miniature_ocr_cpu.yaml"
EIGHT = "1x8xH100-80GB"


def plan(path, *overrides, cluster=EIGHT, **more):
    return make_plan(PlanRequest(path, read_yaml(path), overrides, parse_cluster(cluster), **more))


@pytest.mark.parametrize(
    ("text", "nodes", "gpus", "cpus", "gib"),
    [
        ("4x8xH100-80GB", 4, 8, 96, 1024.0),
        ("1x8xA100-40GB,64cpu,512GB", 1, 8, 64, 512.0),
        ("2x4xL40S-48GB,256GB", 2, 4, 48, 256.0),
        ("3xcpu16-64GB", 3, 0, 16, 64.0),
    ],
)
def test_cluster_shapes(text, nodes, gpus, cpus, gib):
    shape = parse_cluster(text)
    assert (shape.num_nodes, shape.num_gpus, shape.num_cpus, shape.host_gib) == (nodes, gpus, cpus, gib)


@pytest.mark.parametrize(
    "text",
    [
        *("", "8", "H100-80GB", "8xH100-80GB", "4x8xH100", "0x8xH100-80GB", "4x0xH100-80GB", "-1x8xH100-80GB"),
        *("99999999999999999999x8xH100-80GB", "1x999x" + "H100-80GB", "1xcpu99999-64GB", "1xcpu4-9999999GB"),
        *("9" * 400 + "x8xH100-80GB", "9" * 5000 + "x8xH100-80GB", "1xcpu4-" + "9" * 400 + "GB", "٤x8xH100-80GB"),
        *("4x8xV100-32GB", "1xcpu0-64GB", "1xcpu16", "1xcpu16-64GB,96cpu", "1x8xH100-80GB,lots", "1x8xH100-80GB,"),
    ],
)
def test_a_malformed_cluster_is_one_line_and_exit_2(text, capsys):
    with pytest.raises(PlacementError):
        parse_cluster(text)
    assert main(["plan", "--config", str(OCR), f"--cluster={text}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "NODESxGPUSxKIND" in err and "--cluster 4x8xH100-80GB" in err


def placement_of(config: TrainConfig) -> Placement:
    return plan_placement(config.rollout, config.reward, config.learner, config.placement)


def test_places_fill_a_node_before_the_next_and_share_no_whole_gpu():
    config = load_settings(TrainConfig, MATH, [*APART, "learner.num_ranks=8", "rollout.num_engines=8"])
    assignment = assign_nodes(placement_of(config), parse_cluster("2x8xH100-80GB"))
    assert assignment.unplaced == ()
    for places in assignment.by_node(2):
        assert sorted(gpu for place in places for gpu in place.gpus) == list(range(8))
    assert {place.node for place in assignment.places if place.actor.role == "learner"} == {0}


def test_actors_on_parts_of_a_gpu_share_one():
    config = parse_settings(EvaluateConfig, {"benchmarks": ["ten"], "engine": {"num_engines": 8, "num_gpus": 0.5}})
    assignment = assign_nodes(plan_engines(config.engine), parse_cluster("1x4xH100-80GB,96cpu"))
    assert sorted(gpu for place in assignment.places for gpu in place.gpus) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_an_engine_over_several_gpus_sits_on_one_node():
    config = load_settings(TrainConfig, MATH, [*APART, "rollout.num_gpus_per_engine=4", "rollout.num_engines=1"])
    assignment = assign_nodes(placement_of(config), parse_cluster("2x6xH100-80GB"))
    [engine] = [place for place in assignment.places if place.actor.role == "rollout"]
    assert (engine.node, len(engine.gpus)) == (1, 4), "after four ranks node 0 has two GPUs left"


@pytest.mark.parametrize("cluster", ["1x8xH100-80GB", "1x4xH100-80GB", "2x4xA100-80GB", "1xcpu16-64GB"])
def test_the_plan_and_the_run_refuse_alike(cluster):
    """What `check_fits` refuses at the start of a run is a problem of the plan, in the same words."""
    shape = parse_cluster(cluster)
    try:
        check_fits(placement_of(load_settings(TrainConfig, MATH)), *ray_resources(shape))
    except PlacementError as error:
        assert str(error) in plan(MATH, cluster=cluster).problems
    else:
        assert not [problem for problem in plan(MATH, cluster=cluster).problems if "all actors run at once" in problem]


@pytest.mark.parametrize(
    ("cluster", "overrides", "change"),
    [
        (EIGHT, ["learner.gradient_checkpointing=false"], "learner.gradient_checkpointing=true"),
        (EIGHT, ["learner.zero_stage=2", "learner.num_ranks=4", "learner.micro_batch_tokens=200000"], None),
        ("1x8xA100-40GB", [], None),
        ("1x8xL40S-48GB", ["learner.gradient_checkpointing=false", "learner.zero_stage=2"], None),
        ("1x4xH100-80GB", [], "rollout.num_engines=2 learner.num_ranks=2"),
        ("1x8xH100-80GB", ["rollout.num_engines=12"], None),
        ("1x8xA100-80GB", ["model.path=Qwen/Qwen2.5-VL-7B-Instruct", "learner.zero_stage=2"], None),
        (EIGHT, ["placement.colocate=true", "rollout.gpu_memory_share=0.9"], "rollout.gpu_memory_share=0.6"),
        ("1x4xH100-80GB", ["placement.colocate=true"], None),
    ],
)
def test_the_nearest_change_makes_it_fit(cluster, overrides, change):
    """The change is tried: with it applied, the plan has no problem."""
    if "placement.colocate=true" not in overrides:
        overrides = [*APART, *overrides]
    seen = plan(MATH, *overrides, cluster=cluster)
    assert not seen.fits and seen.change and change in (None, seen.change)
    words = seen.change.split()
    larger = words[words.index("--cluster") + 1] if "--cluster" in words else cluster
    settings = [word for word in words if "=" in word and not word.startswith("--")]
    keys = {word.partition("=")[0] for word in settings}
    kept = [override for override in overrides if override.partition("=")[0] not in keys]
    assert plan(MATH, *kept, *settings, cluster=larger).fits


def test_where_nothing_helps_nothing_is_promised():
    """The reference model of 7B and what ZeRO cannot divide are too much for 40 GB, on however many nodes."""
    seen = plan(MATH, "model.path=Qwen/Qwen2.5-VL-7B-Instruct", "rollout.max_tokens=1024", cluster="1x8xA100-40GB")
    assert not seen.fits and (not seen.change or "kl_coefficient=0" in seen.change)


def test_more_nodes_are_the_change_where_nothing_smaller_will_do():
    seen = plan(
        OCR,
        "rollout.num_cpus_per_engine=8",
        "learner.num_cpus_per_rank=8",
        "weights.folder=shared",
        cluster="1xcpu8-64GB",
    )
    assert not seen.fits and "--cluster 3xcpu8-64GB" not in seen.change
    assert seen.change == "rollout.num_cpus_per_engine=0.8 learner.num_cpus_per_rank=0.8"
    many = plan(
        OCR, "reward.num_scorers=40", "reward.num_cpus_per_scorer=1", "weights.folder=shared", cluster="1xcpu16-64GB"
    )
    assert many.change == "--cluster 3xcpu16-64GB"


def test_weights_in_the_memory_of_one_node_of_several_are_a_problem():
    assert "is the memory of one node" in plan(OCR, cluster="2xcpu2-16GB").problems[0]


def test_main_memory_counts():
    seen = plan(MATH, cluster="1x8xH100-80GB,96cpu,100GB")
    assert any("of main memory, it has 100 GiB" in problem for problem in seen.problems)


def test_batch_arithmetic_of_the_papers_step():
    """512 prompts of 5, four minibatches of 128, four ranks: 32 groups a rank; at the most a group is alone."""
    config = load_settings(TrainConfig, MATH, APART)
    work = build_workload(config, find_shape(config.model.path), {"prompt": 700, "image": 600, "completion": 165})
    expected, most = work.expected, work.most
    assert (expected.num_rows, expected.completion_tokens, expected.tokens) == (2560, 2560 * 165, 2560 * 865)
    assert expected.shared_tokens == 512 * 700 + 2560 * 165
    assert (expected.micro.num_groups_per_rank, expected.micro.num_groups_at_once) == (32, 16384 // (5 * 865))
    assert expected.micro.num_micro_batches == -(-32 // 3)
    assert (most.tokens, most.micro.num_groups_at_once, most.lengths.image) == (2560 * 4096, 1, 1280)
    assert work.window_groups == 512


def test_stated_throughput_is_what_the_time_is_made_of():
    seen = plan(MATH, throughput={"generate": 10_000, "learn": 20_000}, expect={"completion": 100})
    seconds = seen.metrics["seconds"]
    assert seconds["generate"] == pytest.approx(2560 * 100 / 10_000)
    assert seconds["learn"] == pytest.approx(2560 * 100 / 20_000)
    assert seconds["step"] == pytest.approx(sum(seconds[name] for name in ("generate", "learn", "publish")))
    assert seen.metrics["gpu_hours"] == pytest.approx(8 * seconds["run"] / 3600)
    overlapped = plan(
        MATH,
        *APART,
        "run.max_staleness=1",
        throughput={"generate": 10_000, "learn": 20_000},
        expect={"completion": 100},
    )
    assert overlapped.metrics["seconds"]["step"] == pytest.approx(25.6), "the longer of writing and the rest"


ONE = ("rollout.num_engines=1", "learner.num_ranks=1", "reward.num_scorers=1", "learner.zero_stage=2")


@pytest.mark.parametrize(
    ("cluster", "overrides", "layout"),
    [
        (
            "1x1xH200-141GB",
            (*ONE, "rollout.gpu_memory_share=0.3"),
            [("node 0", "driver, learner-0 on GPU 0, rollout-0 on GPU 0, scorer-0")],
        ),
        (
            EIGHT,
            (),
            [
                (
                    "node 0",
                    "driver, learner-0 to learner-7 on GPU 0-7, rollout-0 to rollout-7 on GPU 0-7, scorer-0 to sc",
                )
            ],
        ),
        (
            "4x8xH100-80GB",
            ("rollout.num_engines=32", "learner.num_ranks=32"),
            [
                ("node 0", "driver, learner-0 to learner-7 on GPU 0-7, rollout-0 to rollout-7 on GPU 0-7, scorer-0 to"),
                ("nodes 1 to 3", "learner-8 to learner-31 on GPU 0-7, rollout-8 to rollout-31 on GPU 0-7"),
            ],
        ),
    ],
)
def test_shared_gpus_are_laid_out_and_timed(cluster, overrides, layout):
    """Each GPU has a rank and its engine, and a step is the sum of its phases at the stated throughput."""
    num_gpus = int(cluster[0]) * int(cluster[2])
    known = {"generate": 1_800 * num_gpus, "learn": 1_200 * num_gpus}
    seen = plan(MATH, *overrides, cluster=cluster, throughput=known, expect={"completion": 200})
    assert seen.fits, seen.problems
    [places] = [section.rows for section in seen.sections if section.title == "Placement"]
    assert len(places) == len(layout)
    assert all(
        place == name and told.startswith(words) for (place, told), (name, words) in zip(places, layout, strict=True)
    )
    gpus = {place["actor"]: (place["node"], place["gpus"]) for place in seen.metrics["placement"]}
    assert all(gpus[f"rollout-{index}"] == gpus[f"learner-{index}"] for index in range(num_gpus))
    seconds = seen.metrics["seconds"]
    assert seconds["step"] == pytest.approx(512_000 / known["generate"] + 512_000 / known["learn"])
    assert seen.metrics["gpu_hours"] == pytest.approx(num_gpus * seconds["run"] / 3600)
    [time_rows] = [section.rows for section in seen.sections if section.title == "Time"]
    assert time_rows[0][2] == "one after the other, each on all GPUs"


def test_engine_and_rank_need_what_one_does_while_the_other_rests():
    """By hand: on the GPU of both lies the larger of two sums, not the sum of both at work."""
    seen = plan(MATH, "rollout.gpu_memory_share=0.9")
    engine, rank = (
        next(memory for memory in seen.metrics["memory"] if memory["role"] == role)
        for role in ("engine", "learner rank")
    )
    share = 0.9 * 79.1 * 2**30
    work = ("activations", "image tokens", "logits chunk")
    resting_rank = sum(size for part, size in rank["most_bytes"].items() if part not in work)
    needed = share + engine["most_bytes"]["weight transfer"] + resting_rank
    resting_engine = engine["most_bytes"]["CUDA and NCCL"] + engine["most_bytes"]["activations"]
    assert needed > resting_engine + sum(rank["most_bytes"].values())
    assert seen.problems == (
        f"learner-0 and rollout-0: {needed / 2**30:.0f} GiB at the longest step, the H100-80GB has 79 GiB",
    )


@pytest.mark.parametrize(
    ("memories_mib", "overrides", "says"),
    [
        (
            (81559, 46068),
            (),
            "learner-0 and rollout-0: .* the NVIDIA L40S has 45 GiB; with placement.colocate one works",
        ),
        (
            (81559,),
            ("rollout.gpu_memory_share=0.9",),
            "the NVIDIA H100 80GB HBM3 has 80 GiB; .* lower rollout.gpu_memory",
        ),
        ((81559,), (), ""),
    ],
)
def test_a_gpu_too_small_for_both_is_refused_before_anything_starts(
    memories_mib, overrides, says, tmp_path, monkeypatch, capsys
):
    names = {81559: "NVIDIA H100 80GB HBM3", 46068: "NVIDIA L40S"}
    rows = "".join(f"echo '{mib}, {names[mib]}'\n" for mib in memories_mib)
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{rows}")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = load_settings(TrainConfig, MATH, overrides)
    gpu = smallest_gpu()
    assert gpu is not None and gpu.memory_gib == pytest.approx(min(memories_mib) / 1024)
    if not says:
        check_shared_gpus(config, gpu)
        return
    assert main(["train", "--config", str(MATH), *overrides]) == 2
    printed = capsys.readouterr().err
    assert re.search(says, printed) and printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["nvidia-smi"]


def test_sleeping_weights_take_main_memory():
    kept, dropped = (
        next(
            memory
            for memory in plan(MATH, f"placement.sleep_level={level}").metrics["memory"]
            if memory["role"] == "engine"
        )
        for level in (1, 2)
    )
    assert kept["host_bytes"] - dropped["host_bytes"] == pytest.approx(kept["most_bytes"]["weights"])


def test_no_time_is_guessed(capsys):
    """Half of what it takes to tell is no more than nothing."""
    for throughput in ({}, {"generate": 10_000}, {"learn": 20_000}):
        assert "seconds" not in plan(MATH, throughput=throughput).metrics
    assert main(["plan", "--config", str(MATH)]) == 0
    assert "--throughput generate=N,learn=N (tokens a second) or --recorded RUN says it" in capsys.readouterr().out


def record(folder, *rows, **overrides):
    folder.mkdir()
    config = {**read_yaml(OCR), **overrides}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


ROW = {
    "tokens_per_second": 1000.0,
    "seconds_step": 4.0,
    "seconds_generate": 2.0,
    "seconds_learn": 1.0,
    "seconds_publish": 0.5,
}


def test_recorded_throughput_leaves_the_first_step_out_and_is_scaled(tmp_path):
    first = {**ROW, "seconds_generate": 50.0, "length_mean": 90.0}
    run = record(tmp_path / "r", first, {**ROW, "length_mean": 30.0}, {**ROW, "length_mean": 20.0})
    config = load_settings(TrainConfig, OCR)
    throughput, expect = read_recorded(run, config)
    assert (throughput.generate, throughput.learn, throughput.publish_s) == (2000.0, 4000.0, 0.5)
    assert expect == {"completion": 25.0}
    twice = load_settings(TrainConfig, OCR, ["rollout.num_engines=2", "learner.num_ranks=3"])
    more, _ = read_recorded(run, twice)
    assert (more.generate, more.learn) == (4000.0, 12000.0) and "2 x its engines and 3 x its ranks" in more.source
    seen = plan(OCR, cluster="1xcpu2-16GB", recorded=run)
    assert seen.metrics["seconds"]["generate"] == pytest.approx(128 * 25 / 2000)
    assert "doubtful" in read_recorded(run, load_settings(TrainConfig, MATH))[0].source


def test_a_recorded_run_that_is_none_is_said(tmp_path):
    config = load_settings(TrainConfig, OCR)
    with pytest.raises(RunFolderError, match="cannot be read"):
        read_recorded(tmp_path, config)
    with pytest.raises(RunFolderError, match="has made no step"):
        read_recorded(record(tmp_path / "r"), config)
    with pytest.raises(ConfigError, match="a recorded run is a training"):
        plan(CONFIGS / "merge_tiny_r1v_3b.yaml", recorded=tmp_path)


def test_evaluations_are_placed_as_they_run():
    path = CONFIGS / "evaluate_ten_benchmarks.yaml"
    config = load_settings(EvaluateConfig, path)
    places = make_plan(PlanRequest(path, read_yaml(path), cluster=parse_cluster(EIGHT))).metrics["placement"]
    assert [place["actor"] for place in places] == [actor.name for actor in plan_engines(config.engine).actors]
    assert sum(count_items(config).values()) == 16_427
    assert set(count_items(load_settings(EvaluateConfig, path, ["num_items=100"])).values()) == {100}
    with pytest.raises(ConfigError, match="did you mean"):
        count_items(load_settings(EvaluateConfig, path, ["benchmarks=[mathvist]"]))


def test_a_merge_is_planned_from_shapes_as_from_the_folders_themselves(tmp_path):
    """The same tensors, work and bytes, whether the experts are there or not (here all are float32)."""
    from tinyr1v_ray.config.merge import MethodConfig
    from tinyr1v_ray.merging.accounting import build_ledger
    from tinyr1v_ray.merging.checkpoint_folder import open_checkpoint
    from tinyr1v_ray.merging.plan import make_plan as merge_plan
    from tinyr1v_ray.miniature.base import base_model_folder
    from tinyr1v_ray.planning.merge_plan import shape_ledger

    base = open_checkpoint(base_model_folder())
    there = merge_plan(build_ledger(base, [base, base, base]), {"": MethodConfig()}, shard_bytes=1 << 30)
    absent = merge_plan(shape_ledger(find_shape("miniature"), 3), {"": MethodConfig()}, shard_bytes=1 << 30)
    by_name = {task.name: task for task in there.tasks}
    assert by_name.keys() == {task.name for task in absent.tasks}
    for task in absent.tasks:
        own = by_name[task.name]
        assert (task.treatments, task.shape, task.cost.flops) == (own.treatments, own.shape, own.cost.flops)
        assert task.cost.memory_bytes == own.cost.memory_bytes and task.cost.write_bytes == own.cost.write_bytes


def test_a_merge_too_large_for_the_node_says_how_much_it_needs():
    seen = plan(CONFIGS / "merge_tiny_r1v_3b.yaml", "job.device=cpu", "job.memory_gib=1")
    assert "the largest tensor needs 1.7 GiB" in seen.problems[0]
    assert plan(CONFIGS / "merge_tiny_r1v_3b.yaml", "job.device=cpu", seen.change).fits
    assert plan(CONFIGS / "merge_tiny_r1v_3b.yaml", cluster="1xcpu16-64GB").change == "job.device=cpu"


def test_kinds_are_told_by_their_keys():
    assert {path.stem: kind_of_config(read_yaml(path), path.name) for path in (MATH, OCR)} == {
        "lipo_math_8gpu": "train", "miniature_ocr_cpu": "train"
    }  # fmt: skip
    with pytest.raises(ConfigError, match="one of them tells its kind"):
        kind_of_config({"name": "x"}, "x.yaml")


def test_without_a_cluster_gpus_decide(monkeypatch):
    assert str(usual_cluster(read_yaml(MATH))) == EIGHT
    assert usual_cluster(read_yaml(OCR)).accelerator is None
    assert str(usual_cluster(read_yaml(OCR), ["rollout.num_gpus_per_engine=1"])) == EIGHT
    assert str(usual_cluster({"experts": [], "job": {"device": "cuda"}})) == EIGHT
    assert usual_cluster({"job": {"device": "cpu"}}).num_gpus == 0


def test_exit_codes_and_both_forms_of_output(capsys):
    assert main(["plan", "--config", str(MATH), "--cluster", EIGHT]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[2] == "fits" and max(map(len, text.splitlines())) <= 130
    assert main(["plan", "--config", str(MATH), "--cluster", "1x2xH100-80GB", "--json"]) == 2
    metrics = json.loads(capsys.readouterr().out)
    assert not metrics["fits"] and metrics["nearest_change"] and metrics["settings"]["learner"]["zero_stage"] == 3
    assert {place["actor"] for place in metrics["placement"] if place["node"] is None} >= {"rollout-2", "learner-2"}
    assert main(["plan", "--config", str(MATH), "rollout.num_engines=40", "learner.num_ranks=40"]) == 0, (
        "no cluster was named"
    )
    assert "does not fit" in capsys.readouterr().out
    assert main(["plan", "--config", str(MATH), "--show-settings"]) == 0
    assert "  learner.adam_betas = [0.9, 0.999]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--throughput", "generate=fast"], "--throughput has 'generate=fast'"),
        (["--throughput", ","], "--throughput has ''"),
        (
            ["--throughput", "generate=1,generate=2"],
            "--throughput has 'generate=2'; it is generate=N,learn=N, each once",
        ),
        (["--throughput", "generate=٤"], "--throughput has 'generate=٤'"),
        (["--throughput", "generate=1e-300"], "numbers from 0.001 to 1e+09"),
        (["--expect", "prompt=1e300"], "--expect has 'prompt=1e300'"),
        (["--shape", "zzz"], "model 'zzz' is no folder"),
        (["rollout.num_engines=1000000000"], "less than or equal to 4096"),
        (["reward.num_scorers=1000000000"], "less than or equal to 4096"),
        (["learner.num_ranks=1000000000"], "less than or equal to 4096"),
        (["run.num_steps=" + "9" * 400], "input should be below 2^63"),
        (["--throughput", "speed=3"], "--throughput has 'speed=3'"),
        (["--expect", "completion=-1"], "--expect has 'completion=-1'"),
        (["--expect", "completion=9999"], "longer than rollout.max_tokens 2048"),
        (["model.path=somebody/Model-3B"], "a plan needs the model's shapes"),
        (["rollout.num_engine=3"], "did you mean rollout.num_engines"),
        (["a=[1"], "cannot be applied"),
        (["--recorded", "nowhere"], "recorded run nowhere cannot be read"),
    ],
)
def test_what_is_typed_wrong_is_one_line(arguments, message, capsys):
    assert main(["plan", "--config", str(MATH), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


def test_the_largest_plan_takes_seconds():
    overrides = (
        "rollout.num_engines=4096",
        "reward.num_scorers=4096",
        "learner.num_ranks=4096",
        "run.num_steps=9" + 17 * "0",
    )
    start = time.monotonic()
    assert plan(MATH, *overrides, cluster="512x8xH100-80GB").fits, "engines share the ranks' GPUs"
    overrides = (*APART, *overrides, "rollout.num_cpus_per_engine=8", "learner.num_cpus_per_rank=8")
    largest = plan(MATH, *overrides, cluster="1024x8xH100-80GB")
    assert largest.fits
    [places] = [section.rows for section in largest.sections if section.title == "Placement"]
    assert len(places) < 10 and ("nodes 128 to 511", "learner-1024 to learner-4095 on GPU 0-7") in places
    assert not plan(MATH, *overrides, cluster="1023x8xH100-80GB").fits
    assert time.monotonic() - start < 60


def test_a_recipe_is_planned_where_none_of_its_inputs_is(tmp_path, capsys):
    """Base, data, benchmarks and the user's own functions are named, and lie on the cluster."""
    recipe = {
        "name": "far",
        "base": "/far/base",
        "train": {"data": {"train": ["/far/train.jsonl"]}, "reward": {"function": "far_away:score"}},
        "trainings": {"math": {}, "ocr": {}},
        "merge": {"experts": ["math", "ocr"], "methods": {"own": {"name": "function", "function": "far_away:mean"}}},
        "evaluate": {"benchmarks": ["ten"], "data": "/far/tables"},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    words = ["plan", "--config", str(tmp_path / "recipe.yaml"), "--shape", "miniature", "--json"]
    assert main([*words, "--throughput", "generate=1000,learn=1000"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert len(metrics["stages"]) == 7 and all(of["seconds"]["run"] > 0 for of in metrics["stages"].values())


def test_an_evaluation_s_mean_answer_is_within_its_longest(capsys):
    config = next(ROOT.glob("configs/evaluate_*.yaml"))
    assert main(["plan", "--config", str(config), "--expect", "completion=1e8"]) == 2
    assert "is longer than sampling.max_tokens" in capsys.readouterr().err


def test_a_plan_of_a_training_loads_nothing_heavy_once_the_model_was_counted():
    """Fast, and the same where Ray, vLLM or DeepSpeed are not installed."""
    plan(MATH)
    names = "('torch', 'ray', 'vllm', 'deepspeed', 'transformers', 'datasets')"
    blocked = f"import sys\nfor name in {names}:\n    sys.modules[name] = None\n"
    code = f"{blocked}from tinyr1v_ray.cli.main import main\nsys.exit(main(['plan', '--config', {str(MATH)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2] == "fits"


def test_settings_round_trip():
    settings = plan(MATH).settings
    assert parse_settings(TrainConfig, settings) == load_settings(TrainConfig, MATH)
