"""A whole recipe on the real Ray, vLLM and DeepSpeed: killed, continued, and found finished."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from transformers import Qwen2_5_VLForConditionalGeneration

TINYR1V = str(Path(sys.executable).with_name("tinyr1v"))
SHIPPED = Path(__file__).parents[2] / "configs" / "recipe_miniature_cpu.yaml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The shipped recipe, made small: one specialist, two merges, six items."""
    tree = yaml.safe_load(SHIPPED.read_text())
    tree |= {"name": "small", "folder": str(tmp_path / "runs")}
    tree["train"]["run"] |= {"num_steps": 3, "num_prompts_per_step": 4}
    tree["train"]["rollout"] |= {"num_completions": 4, "max_tokens": 48}
    tree["train"]["checkpoint"] = {"every_n_steps": 1}
    tree["trainings"] = {"ocr": {**tree["trainings"]["ocr"], "evaluated": False}}
    tree["merge"] = {"experts": ["ocr"], "recipes": {"average": {"method": "average"}}}
    tree["evaluate"] |= {"benchmarks": ["miniature:ocr"], "num_items": 6}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def run(config: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [TINYR1V, "run", "--config", str(config), *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=config.parent)


def killed_at_step(config: Path, metrics: Path) -> None:
    """Start the recipe and kill it, with all that it started, once a training has made a step."""
    log = config.parent / "killed.log"
    with log.open("w") as output:
        driver = subprocess.Popen([TINYR1V, "run", "--config", str(config)], stdout=output, stderr=output)
    deadline = time.monotonic() + 200
    while not (metrics.is_file() and b"\n" in metrics.read_bytes()):
        assert driver.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(children, timeout=30)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def test_a_killed_recipe_goes_on_and_a_finished_one_is_not_run_again(config: Path) -> None:
    folder = config.parent / "runs" / "small"
    refused = run(config, "trainings.ocr.settings.run.num_step=1")
    assert refused.returncode == 2 and "trainings.ocr: config: unknown key run.num_step" in refused.stderr
    assert not folder.exists(), "nothing is made before the recipe is found fit"

    from tinyr1v_ray.config.base import load_settings
    from tinyr1v_ray.config.pipeline import PipelineConfig
    from tinyr1v_ray.orchestration.pipeline.stages import build_graph

    training = build_graph(load_settings(PipelineConfig, config)).stages[0].folder
    killed_at_step(config, training / "metrics.jsonl")
    assert not (folder / "report.html").exists()

    done = run(config)
    assert done.returncode == 0, done.stderr[-3000:]
    index = json.loads((folder / "recipe.json").read_text())
    assert {stage["state"] for stage in index["stages"]} == {"done"} and len(index["stages"]) == 4
    assert f"report: {folder / 'report.html'}" in done.stdout and (folder / "report.html").stat().st_size > 10_000
    steps = [json.loads(line)["step"] for line in (training / "metrics.jsonl").read_text().splitlines()]
    groups = [json.loads(line) for line in (training / "groups.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3] and len({(row["epoch"], row["prompt_id"]) for row in groups}) == len(groups) == 12
    assert len(json.loads((training / "environment.json").read_text())["resumed"]) == 1
    models = {row["name"]: folder / row["folder"] for row in index["models"]}
    assert set(models) == {"base", "average"}
    for path in (models["average"], training / "export"):
        Qwen2_5_VLForConditionalGeneration.from_pretrained(path)
    for row in index["models"]:
        answers = (folder / row["evaluation"] / "miniature_ocr" / "answers.jsonl").read_text().splitlines()
        assert len(answers) == 6

    before = {path: path.stat().st_mtime_ns for path in (folder / "stages").rglob("*") if path.is_file()}
    again = run(config)
    assert again.returncode == 0 and "4 stages, 4 of them done before" in again.stdout
    assert "starting Ray" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
