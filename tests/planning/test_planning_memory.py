"""Memory: estimates against measured runs of the miniature, and 3B by hand."""

from pathlib import Path

import pytest
from planning_checks import APART, planned_mib

from tinyr1v_ray.cluster.shape import GIB, parse_cluster
from tinyr1v_ray.config.base import load_settings, parse_settings, read_yaml
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.planning.activations import MicroBatchSize, language_bytes, layer_bytes
from tinyr1v_ray.planning.memory import checkpoint_bytes
from tinyr1v_ray.planning.shapes import find_shape
from tinyr1v_ray.planning.train_design import design_training

CONFIGS = Path(__file__).parents[2] / "configs"
EIGHT = parse_cluster("1x8xH100-80GB")
P_3B = 3_754_622_976

MEASURED = {
    "as shipped, 60 steps, 1000 held-out items": ("ocr", (), (788, 2524, 1331, 186)),
    "GRPO, 60 steps, 1000 held-out items": ("ocr", ("algorithm.name=grpo",), (785, 2484, 1149, 180)),
    "no held-out items": ("ocr", ("run.num_steps=4", "evaluation.num_items=0"), (727, 2063, 1261, 173)),
    "KV cache of 3 GiB, ZeRO 0": (
        "ocr",
        ("run.num_steps=4", "evaluation.num_items=0", "rollout.kv_cache_gib=3", "learner.zero_stage=0"),
        (728, 4096, 1254, 173),
    ),
    "4 prompts of 4, 1000 held-out items": (
        "ocr",
        ("run.num_steps=2", "run.num_prompts_per_step=4", "rollout.num_completions=4"),
        (786, 2448, 798, 175),
    ),
    "ZeRO 3 on two ranks with a reference model": (
        "structure",
        (
            *("run.num_steps=4", "evaluation.num_items=0", "learner.zero_stage=3", "learner.num_ranks=2"),
            *("learner.num_cpus_per_rank=0.4", "algorithm.kl_coefficient=0.01"),
        ),
        (721, 2175, 1092, 173),
    ),
}
"""Peak memory, MiB, of driver, engine, learner rank and scorer in finished runs (`summary.json`), two CPU cores."""


@pytest.mark.parametrize("name", MEASURED)
def test_estimates_are_within_a_fifth_of_what_runs_measured(name):
    domain, overrides, measured = MEASURED[name]
    planned = planned_mib(load_settings(TrainConfig, CONFIGS / f"miniature_{domain}_cpu.yaml", overrides))
    for role, peak in zip(("driver", "rollout", "learner", "scorer"), measured, strict=True):
        assert planned[role] == pytest.approx(peak, rel=0.2), role


def design(*overrides, cluster=EIGHT):
    config = load_settings(TrainConfig, CONFIGS / "lipo_math_8gpu.yaml", [*APART, *overrides])
    return design_training(config, find_shape(config.model.path), cluster, {})


def test_model_states_of_3b_under_zero_3_by_hand():
    """Four ranks, bfloat16 with float32 masters: a quarter of 2, 4, 4 and 8 bytes a parameter; the reference whole."""
    parts = design().memories["learner"].most
    assert parts["weights"] == pytest.approx(2 * P_3B / 4 + 2e9)  # and up to 1e9 parameters gathered
    assert parts["gradients"] == pytest.approx(4 * P_3B / 4)
    assert parts["master weights"] == pytest.approx(4 * P_3B / 4)
    assert parts["optimizer"] == pytest.approx(8 * P_3B / 4)
    assert parts["reference model"] == pytest.approx(2 * P_3B)


def test_zero_2_keeps_weights_whole_and_zero_0_gradients_too():
    two = design("learner.zero_stage=2").memories["learner"].most
    none = design("learner.zero_stage=0").memories["learner"].most
    assert two["weights"] == none["weights"] == 2 * P_3B
    assert two["gradients"] == pytest.approx(P_3B)
    assert none["gradients"] == pytest.approx(6 * P_3B), "bfloat16, and their sum in float32"
    assert two["optimizer"] == none["optimizer"], "stage 0 runs as 1 in bfloat16"


def test_a_frozen_vision_tower_needs_no_optimizer():
    vision = find_shape("Qwen/Qwen2.5-VL-3B-Instruct").num_vision_parameters
    parts = design("model.train_vision=false").memories["learner"].most
    assert parts["optimizer"] == pytest.approx(8 * (P_3B - vision) / 4)


def test_no_kl_no_reference_model():
    assert "reference model" not in design("algorithm.kl_coefficient=0").memories["learner"].most


def test_checkpoint_and_export_of_3b():
    config = load_settings(TrainConfig, CONFIGS / "lipo_math_8gpu.yaml")
    assert checkpoint_bytes(config, find_shape(config.model.path)) == 14 * P_3B
    disk = design().disk_bytes
    assert disk["kept"] == 2 * 14 * P_3B and disk["export"] == 4 * P_3B


def test_gradient_checkpointing_keeps_one_layer_whole():
    shape = find_shape("Qwen/Qwen2.5-VL-3B-Instruct")
    size = MicroBatchSize(tokens=1000, image_tokens=0, targets=500)
    whole = layer_bytes(2048, 11008, 2)
    assert language_bytes(shape, size, 2, False) == 1000 * 36 * whole
    assert language_bytes(shape, size, 2, True) == 1000 * (36 * 2048 * 2 + whole)


def test_the_logits_chunk_grows_with_the_setting_and_not_with_the_batch():
    def logits(*overrides):
        return design(*overrides).memories["learner"].most["logits chunk"]

    assert logits("learner.micro_batch_tokens=40000") == logits()
    more = logits("learner.logprob_chunk_tokens=2048") - logits()
    assert more == pytest.approx(1.08 * 1024 * 151936 * 6, rel=1e-6)


def test_an_engine_takes_its_share_and_caches_with_what_is_left():
    memory = design().memories["rollout"]
    share = 0.85 * EIGHT.accelerator.memory_gib * GIB
    assert memory.most_bytes - memory.most["weight transfer"] == pytest.approx(share)
    halved = design("rollout.num_gpus_per_engine=2", "rollout.num_engines=2").memories["rollout"]
    assert halved.most["weights"] == pytest.approx(memory.most["weights"] / 2)
    assert halved.most["KV cache"] > memory.most["KV cache"]


@pytest.mark.parametrize("setting", ["rollout.max_tokens", "learner.micro_batch_tokens"])
def test_more_tokens_never_need_less(setting):
    sizes = [design(f"{setting}={number}").memories["learner"].most_bytes for number in (256, 512, 1024, 2000)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", ["lipo_math_8gpu", "miniature_ocr_cpu", "miniature_structure_cpu"])
def test_the_most_is_never_below_the_expected(name):
    config = parse_settings(TrainConfig, read_yaml(CONFIGS / f"{name}.yaml"))
    work = design_training(config, find_shape(config.model.path), EIGHT, {})
    for memory in work.memories.values():
        for part, expected in memory.expected.items():
            assert memory.most[part] >= expected, part
