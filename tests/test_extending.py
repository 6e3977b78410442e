"""What may be one's own, from the reward to the merge method: the document's files and commands, as they stand."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from yaml import safe_load

from tinyr1v_ray.algorithms.advantages import build_advantages
from tinyr1v_ray.cli.main import build_parser, main
from tinyr1v_ray.config.base import SchemaT, load_settings, parse_settings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.batching import build_train_batch
from tinyr1v_ray.errors import ConfigError, MergeError
from tinyr1v_ray.evaluation.benchmarks.stored import StoredAnswer, benchmark_folder, write_answers, write_items
from tinyr1v_ray.jobs.evaluate.folder import open_output, output_folder
from tinyr1v_ray.jobs.evaluate.inputs import load_evaluation, named_benchmarks
from tinyr1v_ray.jobs.merge import job as merge_job
from tinyr1v_ray.jobs.recipe.graph import build_graph
from tinyr1v_ray.jobs.train.inputs import load_inputs
from tinyr1v_ray.merging.custom_method import require_same_function
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.rewards.isolation import ScoringProcess
from tinyr1v_ray.types import Completion, Finish, Prompt, RolloutGroup, Score, ScoredGroup

ROOT = Path(__file__).parents[1]
SECTION = (
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Your own reward")[2].partition("\n## ")[0]
)
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
MODULES = ("own_rewards", "own_advantages", "own_domains", "own_merges")
LINEAR, VECTOR = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"


def files() -> dict[str, str]:
    """The files that the section shows, by name."""
    by_name = {block.partition("\n")[0].removeprefix("# "): block for language, block in BLOCKS if language == "python"}
    [(_, lines)] = [block for block in BLOCKS if block[0] == "json"]
    [(_, table)] = [block for block in BLOCKS if block[0] == "text"]
    return by_name | {"elements.jsonl": lines, "elements.tsv": table}


def command(about: str) -> list[str]:
    """The words after `tinyr1v` of the one command that holds `about`; configurations are the repository's."""
    found = [
        shlex.split(text.replace("\\\n", " ")) for language, text in BLOCKS if language == "bash" and about in text
    ]
    [words] = found
    return [str(ROOT / word) if word.startswith("configs/") else word for word in words[1:]]


def settings(schema: type[SchemaT], about: str, *more: str) -> SchemaT:
    """What that command's configuration and overrides say."""
    options = build_parser().parse_args(command(about))
    return load_settings(schema, options.config, [*options.overrides, *more])


def write_expert(folder: Path, seed: int) -> Path:
    """The miniature, moved a little at random."""
    shutil.copytree(base_model_folder(), folder)
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(folder / "model.safetensors")
    moved = {name: t + 1e-3 * torch.randn(t.shape, generator=generator) for name, t in tensors.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of somebody who follows the document."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("iron.png", "sulfur.png"):
        Image.new("RGB", (56, 56), "gray").save(folder / name)
    for seed, name in enumerate("AB"):
        write_expert(folder / "runs" / name / "export", seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder
    for name in MODULES:
        sys.modules.pop(name, None)


def test_the_section_shows_one_of_each() -> None:
    assert set(files()) == {*(f"{name}.py" for name in MODULES), "elements.jsonl", "elements.tsv"}
    named = ["own_rewards:close", "own_advantages:brief", "own_domains:score", "elements.tsv", "own_merges:median"]
    assert [command(about)[0] for about in named] == ["train", "train", "train", "evaluate", "merge"]
    assert sum(language == "bash" for language, _ in BLOCKS) == len(named)


def test_a_reward_scores_in_the_scoring_process(here: Path) -> None:
    reward = settings(TrainConfig, "own_rewards:close").reward
    texts = ["<think>a</think><answer>40</answer>", "<answer>43</answer>", "<answer>60</answer>", "forty"]
    with ScoringProcess(reward) as process:
        scores = process.score_items([[text, "40", "?", "math"] for text in texts])
    assert [score.parts["answer"] for score in scores] == [1.0, 0.5, 0.0, 0.0]
    assert [score.correct for score in scores] == [True, False, False, False]
    assert scores[0].total == 1.0 and not any(score.failure for score in scores)


def test_an_advantage_of_ones_own_is_trained_on(here: Path) -> None:
    """Two right answers of 48 and 24 tokens and a wrong one; of 96 tokens a tenth would go."""
    config = settings(TrainConfig, "own_advantages:brief")
    assert config.algorithm.name == "function" and config.rollout.max_tokens == 96
    tokens = [np.zeros(length, np.int32) for length in (48, 24, 60)]
    completions = tuple(Completion(ids, np.zeros(len(ids), np.float32), "", Finish.STOP, 0, 0) for ids in tokens)
    scores = (Score(1.0, correct=True), Score(1.0, correct=True), Score(0.0))
    scored = ScoredGroup(RolloutGroup(Prompt("a", "math", "?", "1", (1,)), completions), scores)
    advantages = build_advantages(config.algorithm, config.rollout.max_tokens)([scored], {})
    worth = np.array([0.95, 0.975, 0.0])
    np.testing.assert_allclose(advantages.by_group_PG[0], worth - worth.mean(), atol=1e-12)
    batch = build_train_batch(1, [scored], advantages.by_group_PG, 1, keep_zero_advantages=False)
    rows = batch.minibatches[0].groups[0].rows
    assert [row.advantage for row in rows] == advantages.by_group_PG[0].tolist()


def group(prompt: Prompt, *texts: str) -> RolloutGroup:
    tokens, logprobs = np.array([7], np.int32), np.zeros(1, np.float32)
    return RolloutGroup(prompt, tuple(Completion(tokens, logprobs, text, Finish.STOP, 0, 0) for text in texts))


def test_a_domain_goes_from_the_data_to_its_reward(here: Path) -> None:
    config = settings(TrainConfig, "own_domains:score", f"run.folder={here / 'runs'}")
    inputs = load_inputs(config)
    assert set(inputs.train.domains) == {"chemistry", "math"} and len(inputs.held_out) == 2
    prompts = {prompt.domain: prompt for prompt in inputs.train.in_order()}
    with ScoringProcess(config.reward) as process:
        iron = process.score_group(group(prompts["chemistry"], "<answer>Iron.</answer>", "<answer>42</answer>"))
        number = process.score_group(group(prompts["math"], "<answer>42</answer>", "<answer>iron</answer>"))
    assert [score.correct for score in (*iron.scores, *number.scores)] == [True, False, True, False]


def test_a_domain_without_a_reward_is_refused_in_one_line(here: Path) -> None:
    config = settings(TrainConfig, "own_domains:score", f"run.folder={here / 'runs'}", "reward.function=''")
    with pytest.raises(ConfigError, match=r"domain 'chemistry' has no reward; the known .*; .* set reward\.function"):
        load_inputs(config)


def test_a_benchmark_is_loaded_graded_and_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command finds all answers there already and so draws none: it loads, grades and counts."""
    config = settings(EvaluateConfig, "elements.tsv")
    benchmarks, output = named_benchmarks(config), output_folder(config)
    inputs = load_evaluation(config, benchmarks, output)
    open_output(config, inputs.model_folder, benchmarks, output)
    items = inputs.items["elements"]
    assert [len(prompt.images) for prompt in inputs.prompts["elements"].values()] == [1, 1]
    assert items[0].asked.splitlines()[:3] == ["Which element is this?", "A. iron", "B. gold"]
    texts = {"1": "<think>Grey.</think><answer>A</answer>", "2": "It is carbon."}
    folder = benchmark_folder(output, "elements")
    write_items(folder, items)
    write_answers(
        folder, [StoredAnswer("elements", name, 0, text, 9, "stop", 1.0, 2.0) for name, text in texts.items()]
    )
    assert main([*command("elements.tsv"), "progress=false"]) == 0
    [scores] = json.loads((output / "scores.json").read_text())["benchmarks"].values()
    assert scores["score"] == 50.0 and scores["by_category"] == {"metals": 1.0, "others": 0.0}
    assert re.search(r"^elements +2 +50\.0 ", capsys.readouterr().out, re.MULTILINE)


@pytest.fixture(scope="module")
def merged(here: Path) -> Path:
    """What the document's command makes, in a process that finds no module by chance."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tinyr1v_ray.cli.main", *command("own_merges:median")],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return here / "merged_by_median"


def merge_settings(output: Path) -> MergeConfig:
    tree = {"base": "miniature", "experts": ["runs/A/export", "runs/B/export"], "output": str(output)}
    return parse_settings(MergeConfig, tree, ["method.name=function", "method.function=own_merges:median"])


def test_a_merge_method_merges_the_linear_layers(here: Path, merged: Path) -> None:
    """Of two values the lower one is the median, as torch has it; all other tensors are averaged."""
    base, one, two, out = (
        load_file(folder / "model.safetensors")
        for folder in (base_model_folder(), here / "runs/A/export", here / "runs/B/export", merged)
    )
    delta = torch.minimum(one[LINEAR] - base[LINEAR], two[LINEAR] - base[LINEAR])
    assert torch.equal(out[LINEAR], base[LINEAR] + delta)
    assert torch.allclose(out[VECTOR], (one[VECTOR] + two[VECTOR]) / 2, atol=1e-6)
    report = json.loads((merged / "merge.json").read_text())
    assert report["method"]["function"] == "own_merges:median" and len(report["method"]["function_sha256"]) == 64
    assert report["counts"]["merged"] > 40 and report["counts"]["averaged"] > 40


def test_a_merge_in_this_process_has_the_commands_bytes(here: Path, merged: Path) -> None:
    summary = merge_job.run_merge_job(merge_job.prepare(merge_settings(here / "in_process")))
    ours, theirs = (folder / "model.safetensors" for folder in (summary.output, merged))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_plan_names_the_method_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*command("own_merges:median"), "--plan"]
    words[words.index("merged_by_median")] = "planned"
    assert main(words) == 0
    assert "custom method: own_merges:median (source " in capsys.readouterr().out
    assert not (here / "planned").exists()


@pytest.fixture
def changed(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the functions have other contents under the same names."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text((here / f"{name}.py").read_text() + "\n# changed\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


def fingerprints(tmp_path: Path) -> dict[str, str]:
    """Of the stages of a recipe that has every kind of function, by id."""
    settings = {"data": {"train": ["miniature:math"]}, "reward": {"function": ""}}
    tree = {
        "name": "own",
        "folder": str(tmp_path),
        "train": {"reward": {"function": "own_rewards:close"}},
        "trainings": {
            "one": {"settings": {"data": settings["data"]}},
            "two": {"settings": settings},
            "three": {"settings": {**settings, "algorithm": {"function": "own_advantages:brief"}}},
        },
        "merge": {
            "experts": ["two", "two"],
            "methods": {"median": {"name": "function", "function": "own_merges:median"}},
        },
        "evaluate": {"benchmarks": ["miniature:math"]},
    }
    return {stage.id: stage.fingerprint for stage in build_graph(parse_settings(PipelineConfig, tree)).stages}


def test_a_changed_function_is_another_merge(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    before, stages = merge_job.prepare(merge_settings(tmp_path / "merged")).plan, fingerprints(tmp_path)
    request.getfixturevalue("changed")
    after = merge_job.prepare(merge_settings(tmp_path / "merged")).plan
    assert before.fingerprint != after.fingerprint and before.functions != after.functions
    with pytest.raises(MergeError, match="has another source here than where the merge was planned"):
        require_same_function("own_merges:median", before.functions["own_merges:median"])
    kept = {name for name, value in fingerprints(tmp_path).items() if stages[name] == value}
    assert kept == {"train/two/seed0", "evaluate/base/seed0", "evaluate/two/seed0"}


def test_a_method_of_the_section_is_understood(here: Path) -> None:
    [line] = re.findall(r"`(median: \{.+?\})`", SECTION)
    tree = {"base": "miniature", "output": "out", "methods": safe_load(line)}
    assert parse_settings(MergeConfig, tree).methods["median"].function == "own_merges:median"
