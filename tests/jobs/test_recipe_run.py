"""A whole recipe on the real Ray, vLLM and DeepSpeed: killed, continued, and found finished; and what needs no Ray."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from tinyr1v_ray.checkpoint.manifest import RunState
from tinyr1v_ray.cli.main import main
from tinyr1v_ray.config.base import load_settings
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import LearnerError, RunFolderError
from tinyr1v_ray.jobs.evaluate import job as evaluation_job
from tinyr1v_ray.jobs.recipe import job as pipeline
from tinyr1v_ray.jobs.recipe import merge_stage, train_stage
from tinyr1v_ray.jobs.recipe.graph import build_graph
from tinyr1v_ray.jobs.recipe.index import Index, State
from tinyr1v_ray.jobs.recipe.stage import Stopped, recipe_folder
from tinyr1v_ray.jobs.train import job as training
from tinyr1v_ray.jobs.train.inputs import load_inputs
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.telemetry.display import Display

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

TINYR1V = str(Path(sys.executable).with_name("tinyr1v"))
SHIPPED = Path(__file__).parents[2] / "configs" / "recipe_miniature_cpu.yaml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The shipped recipe, made small: one specialist, one merge, six items."""
    tree = yaml.safe_load(SHIPPED.read_text())
    tree |= {"name": "small", "folder": str(tmp_path / "runs")}
    tree["train"]["run"] |= {"num_steps": 2, "num_prompts_per_step": 4}
    tree["train"]["rollout"] |= {"num_completions": 4, "max_tokens": 48}
    tree["train"]["checkpoint"] = {"every_n_steps": 1}
    tree["trainings"] = {"ocr": {**tree["trainings"]["ocr"], "evaluated": False}}
    tree["merge"] = {"experts": ["ocr"], "methods": {"average": {"name": "average"}}}
    tree["evaluate"] |= {"benchmarks": ["miniature:ocr"], "num_items": 6}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


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


def refuse_ray(*_: object, **__: object) -> None:
    raise AssertionError("Ray was started")


def test_a_killed_recipe_goes_on_and_a_finished_one_is_not_run_again(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.parent / "runs" / "small"
    settings = build_graph(load_settings(PipelineConfig, config)).stages[0].settings
    assert isinstance(settings, TrainConfig)
    trained = Path(settings.run.folder) / settings.run.name
    metrics = trained / "metrics.jsonl"

    killed_at_step(config, metrics)
    assert not (folder / "report.html").exists()

    command = [TINYR1V, "run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=config.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    index = json.loads((folder / "recipe.json").read_text())
    assert {stage["state"] for stage in index["stages"]} == {"done"} and len(index["stages"]) == 4
    assert f"report: {folder / 'report.html'}" in done.stdout and (folder / "report.html").stat().st_size > 10_000
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    groups = [json.loads(line) for line in (trained / "groups.jsonl").read_text().splitlines()]
    in_order = [(prompt.epoch, prompt.prompt_id) for prompt in islice(load_inputs(settings).train.iterate(0), 8)]
    assert steps == [1, 2] and [(row["epoch"], row["prompt_id"]) for row in groups] == in_order
    assert len(json.loads((trained / "environment.json").read_text())["resumed"]) == 1
    models = {row["name"]: folder / row["folder"] for row in index["models"]}
    assert set(models) == {"base", "average"}
    for path in (models["average"], trained / "export"):
        Qwen2_5_VLForConditionalGeneration.from_pretrained(path)
    for row in index["models"]:
        answers = (folder / row["evaluation"] / "miniature_ocr" / "answers.jsonl").read_text().splitlines()
        assert len(answers) == 6
    assert main(["verify", str(folder)]) == 0

    before = {path: path.stat().st_mtime_ns for path in (folder / "stages").rglob("*") if path.is_file()}
    monkeypatch.setattr(pipeline, "connected", refuse_ray)
    assert main(["run", "--config", str(config)]) == 0
    assert "4 stages, 4 of them done before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["folder=recipe.yaml"], "recipe.yaml/small cannot be used: .*recipe.yaml is no folder"),
        (["folder=.", "name=recipe.yaml"], "recipe.yaml cannot be used: .*recipe.yaml is no folder"),
        (["folder=.", "name=mine"], "mine holds something else"),
        (["trainings.ocr.settings.run.num_step=1"], "trainings.ocr: config: unknown key run.num_step"),
        (["trainings.ocr.settings.data.train=['miniature:orc']"], "miniature has no domain 'orc'"),
        (["train.data.evaluation=['miniature:ocr:tain']"], "miniature has no split 'tain'"),
        (["trainings.ocr.settings.telemetry.wandb_project=mine"], "wandb is not installed"),
        (["train.weights.folder=/nowhere"], "weights.folder /nowhere: no such folder"),
    ],
)
def test_what_can_be_told_at_once_is_told_before_ray_and_leaves_nothing(
    words: list[str], message: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "connected", refuse_ray)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(config.parent)
    Path("mine").mkdir()
    Path("mine/letter").touch()
    before = sorted(config.parent.rglob("*"))
    assert main(["run", "--config", str(config), "progress=false", *words]) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed) and printed.count("\n") == 1
    assert sorted(config.parent.rglob("*")) == before


def test_only_the_recipes_own_folder_is_said_to_be_unusable(tmp_path: Path) -> None:
    with (
        contextlib.ExitStack() as stack,
        pytest.raises(RunFolderError, match=r"/proc/none cannot be used: No such file"),
    ):
        pipeline._open(Path("/proc/none"), stack)
    missing = tmp_path / "recipe" / "stages" / "lost"
    with pytest.raises(FileNotFoundError) as raised, contextlib.ExitStack() as stack:
        pipeline._open(tmp_path / "recipe", stack)
        missing.read_text()
    assert not isinstance(raised.value, RunFolderError)


def test_an_interrupted_merge_goes_on_from_its_journal(config: Path) -> None:
    settings = load_settings(PipelineConfig, config, ["merge.job.num_workers=0"])
    graph = build_graph(settings)
    (recipe_folder(settings) / "stages").mkdir(parents=True)
    train, merge = (next(stage for stage in graph.stages if stage.kind == kind) for kind in ("train", "merge"))
    index = Index(recipe_folder(settings), settings, graph)
    asyncio.run(index.begin(train))
    expert = train.folder / "export"
    shutil.copytree(base_model_folder(), expert)
    weights = {name: tensor * 1.01 for name, tensor in load_file(expert / "model.safetensors").items()}
    save_file(weights, expert / "model.safetensors", {"format": "pt"})
    index.finish(train)

    asyncio.run(index.begin(merge))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        merge_stage.merge_until(merge.settings, Display(quiet=True), stop)
    journal = merge.folder.with_name(f".{merge.folder.name}.partial") / "journal.jsonl"
    before = journal.read_text()
    assert '"task"' in before
    index = Index(recipe_folder(settings), settings, graph)
    asyncio.run(index.begin(merge))
    assert journal.read_text() == before
    merge_stage.merge_until(merge.settings, Display(quiet=True), threading.Event())
    index.finish(merge)
    assert Index(recipe_folder(settings), settings, graph).states[merge.id] is State.DONE


def test_a_training_passes_over_a_damaged_checkpoint_since_a_recipe_has_no_flag_for_it(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(PipelineConfig, config)
    graph, found = build_graph(settings), []
    train = next(stage for stage in graph.stages if stage.kind == "train")
    (recipe_folder(settings) / "stages").mkdir(parents=True)
    store = training.CheckpointFolder(train.folder / "checkpoints", 2)
    for step in (1, 2):
        with store.writing(step) as pending:
            (pending.folder / "weights").write_text(f"of step {step}")
            pending.commit(RunState(step, step, {}))
    (store.path(2) / "weights").write_text("damaged")

    async def train_specialist(request: training.TrainRequest, *_: object) -> None:
        found.append(store.latest(request.allow_previous))

    monkeypatch.setattr(train_stage, "load_inputs", lambda _: None)
    monkeypatch.setattr(train_stage, "train_specialist", train_specialist)
    asyncio.run(train.run(Display(quiet=True), ()))
    assert [checkpoint.state.step for checkpoint in found] == [1]


def let_others_in(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, work: Callable[[], Any]) -> None:
    """Put a function in the place of `owner.name` that lasts until the event loop has done something else meanwhile."""
    turn = threading.Event()

    def last(*_: object, **__: object) -> None:
        assert turn.wait(5), f"{name} holds up the event loop"
        raise LearnerError("the end of it")

    async def both() -> None:
        asyncio.get_running_loop().call_later(0.01, turn.set)
        with pytest.raises(LearnerError):
            await work()

    monkeypatch.setattr(owner, name, last)
    asyncio.run(both())


def test_hashing_and_removing_hold_up_no_stage_that_runs_beside(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(PipelineConfig, config)
    graph = build_graph(settings)
    train, evaluate = (next(stage for stage in graph.stages if stage.kind == kind) for kind in ("train", "evaluate"))
    (recipe_folder(settings) / "stages").mkdir(parents=True)
    monkeypatch.setattr(evaluation_job, "load_evaluation", lambda *_: SimpleNamespace(model_folder=config.parent))
    answering = partial(evaluation_job.evaluate_model, evaluate.settings, Display(quiet=True))
    let_others_in(monkeypatch, evaluation_job, "open_output", answering)
    index = Index(recipe_folder(settings), settings, graph)
    asyncio.run(index.begin(train))
    run = training._Run(training.TrainRequest(train.settings), None, None)
    let_others_in(monkeypatch, training.CheckpointFolder, "latest", run.to_the_end)
    (train.folder / "export").mkdir()
    let_others_in(monkeypatch, shutil, "rmtree", partial(index.begin, train))
