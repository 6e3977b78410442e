"""A custom family, registered by a setting: a language model from data in words to a benchmark in words."""

from __future__ import annotations

import json
from pathlib import Path

import own_family
import pytest
import torch
from safetensors.torch import load_file

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.data.model_folder import resolve_model_folder
from tinyr1v_ray.errors import ModelError
from tinyr1v_ray.models.loading import load_model
from tinyr1v_ray.planning.shapes import find_shape

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CONFIGS = Path(__file__).parents[2] / "configs"
FAMILY = "own_family:Llama"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_family.write_folder(tmp_path_factory.mktemp("llama"))


def test_it_is_known_where_the_setting_names_it_and_nowhere_else(folder: Path) -> None:
    assert resolve_model_folder(str(folder), FAMILY) == folder
    shape = find_shape(str(folder), own_family=FAMILY)
    assert {name for name, _ in shape.tensors} == load_file(folder / "model.safetensors").keys()
    with pytest.raises(
        ModelError, match=r"has the architecture LlamaFor.*; known are Qwen2\.5-VL \(.*\); name a model of these, or"
    ):
        resolve_model_folder(str(folder))


def command(name: str, config: str, settings: dict[str, object]) -> None:
    overrides = [f"{key}={value}" for key, value in settings.items()]
    assert main([name, "--config", str(CONFIGS / config), *overrides]) == 0


def test_it_is_trained_and_evaluated_on_the_real_engines(folder: Path, tmp_path: Path) -> None:
    """Ray, vLLM and DeepSpeed. After each update the engine's log-probs equal the learner's, or the run would end
    (`weights.tolerance`); the export is the class's own folder, moved in all of its parts, and is evaluated.
    """
    rows = [{"question": f"What is {number} x 7?", "answer": str(7 * number)} for number in range(8)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = {"model.family": FAMILY, "model.max_length": 256}
    train = {
        **model, "model.path": folder, "data.train": f"[{tmp_path}/train.jsonl]", "data.evaluation": "[]",
        "reward.function": "own_family:reward_letters", "rollout.max_tokens": 32, "algorithm.lipo.length_bound": 32,
        "run.num_steps": 2, "run.num_prompts_per_step": 4, "rollout.num_completions": 4, "evaluation.num_items": 0,
        "run.folder": tmp_path, "run.name": "own", "telemetry.progress": False,
    }  # fmt: skip
    command("train", "miniature_ocr_cpu.yaml", train)
    metrics = [json.loads(line) for line in (tmp_path / "own" / "metrics.jsonl").read_text().splitlines()]
    assert [row["version"] for row in metrics] == [1, 2]
    assert all(row["num_trained_tokens"] > 0 and row["grad_norm"] > 0 for row in metrics)
    assert all(row["mismatch_kl"] < 1e-6 for row in metrics), "the engine samples from what the learner trains"
    before, export = load_file(folder / "model.safetensors"), tmp_path / "own" / "export"
    after = load_file(export / "model.safetensors")
    assert after.keys() == before.keys()
    assert not [name for name in after if torch.equal(after[name], before[name])]
    exported = load_model(resolve_model_folder(str(export), FAMILY), own_family.Llama())
    assert all(torch.equal(parameter, after[name]) for name, parameter in exported.named_parameters())
    (tmp_path / "own.tsv").write_text("index\tquestion\tanswer\n1\tWhat is 6 x 7?\t42\n2\tWhat is 2 x 2?\t4\n")
    evaluate = {
        **model, "model.path": export, "benchmarks": "[own]", "data": tmp_path, "output": tmp_path / "evaluation",
        "user.own.file": "own.tsv", "user.own.metric": "exact", "user.own.images": False, "sampling.max_tokens": 16,
    }  # fmt: skip
    command("evaluate", "evaluate_miniature_cpu.yaml", evaluate)
    lines = (tmp_path / "evaluation" / "own" / "answers.jsonl").read_text().splitlines()
    answers = [(row["prompt_id"], row["num_tokens"] > 0, row["failure"]) for row in map(json.loads, lines)]
    assert sorted(answers) == [("1", True, ""), ("2", True, "")]
