"""The conflict dial: its stages in a recipe's graph, and one small point from planted experts to the report's rows."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.jobs.recipe.dial_stage import DialStage
from tinyr1v_ray.jobs.recipe.graph import Graph, build_graph
from tinyr1v_ray.jobs.recipe.stage import Stopped
from tinyr1v_ray.merging.planted_folders import write_planted
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.report.dial import read_dial
from tinyr1v_ray.report.recipe import Recipe, RecipeStageRow
from tinyr1v_ray.telemetry.display import Display

RECIPE: dict[str, Any] = {
    "name": "dial",
    "train": {"run": {"num_steps": 2}, "model": {"max_length": 384}, "rollout": {"max_tokens": 96}},
    "trainings": {
        "math": {"settings": {"data": {"train": ["miniature:math"]}}},
        "ocr": {"settings": {"data": {"train": ["miniature:ocr"], "domain": "ocr"}}},
        "mixture": {"settings": {"data": {"train": ["miniature:math", "miniature:ocr"]}}},
    },
    "merge": {"experts": ["math", "ocr"], "methods": {"amm": {"amm": {"steps": 3}}, "average": {"name": "average"}}},
    "dial": {
        "experts": ["math", "ocr"],
        "shared": "mixture",
        "overlaps": [0, 0.6],
        "cases": {"plain": {}, "low_rank": {"rank": 4}, "real": {"planted": False}},
        "num_items": 8,
    },
    "evaluate": {"benchmarks": ["miniature:math"], "model": {"max_length": 384}, "sampling": {"max_tokens": 96}},
}


def graph(tmp_path: Path, *overrides: str) -> Graph:
    return build_graph(parse_settings(PipelineConfig, {**RECIPE, "folder": str(tmp_path)}, overrides))


def dials(found: Graph) -> dict[str, DialStage]:
    return {stage.id: stage for stage in found.stages if isinstance(stage, DialStage)}


def test_every_overlap_of_every_case_is_a_stage_after_its_trainings(tmp_path: Path) -> None:
    found = dials(graph(tmp_path))
    planted = [f"dial/{case}_{c}/seed0" for case in ("plain", "low_rank") for c in ("0", "0.6")]
    assert list(found) == [*planted, "dial/real/seed0"]
    assert found["dial/real/seed0"].needs == ("train/math/seed0", "train/ocr/seed0")
    stage = found["dial/low_rank_0.6/seed0"]
    assert stage.needs == ("train/math/seed0", "train/ocr/seed0", "train/mixture/seed0")
    assert stage.settings.domains == ("math", "ocr") and stage.settings.case.rank == 4
    more = dials(graph(tmp_path, "dial.overlaps=[0,0.6,0.8]"))
    assert {name: more[name].fingerprint for name in found} == {name: each.fingerprint for name, each in found.items()}
    other = dials(graph(tmp_path, "merge.methods.amm.amm.steps=4"))
    assert not {each.fingerprint for each in other.values()} & {each.fingerprint for each in found.values()}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (('dial.shared=""',), ("dial.shared", "set it")),
        (("dial.shared=nobody",), ("dial", "nobody")),
        (("dial.experts=[math,mixture]",), ("mixture", "several domains")),
        (("dial.cases.plain.experts=[math]",), ("dial.cases.plain", "two")),
        (("dial.cases.plain.experts=[math,nobody]",), ("dial", "nobody")),
        (("dial.experts=[]",), ("dial.experts", "set")),
        (("dial.overlaps=[1.0]",), ("overlaps",)),
        (("base=some/model",), ("dial", "base=miniature")),
    ],
)
def test_a_dial_that_cannot_be_turned_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], said: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_graph(parse_settings(PipelineConfig, {**RECIPE, "folder": str(tmp_path)}, overrides), read_inputs=False)
    assert all(word in str(caught.value) for word in said)


def specialist(folder: Path, seed: int) -> None:
    """As a training leaves it: the base with every weight moved a little."""
    shutil.copytree(base_model_folder(), folder)
    generator = torch.Generator().manual_seed(seed)
    weights = load_file(folder / "model.safetensors")
    moved = {
        name: w.float() + 0.003 * w.float().std(correction=0) * torch.randn(w.shape, generator=generator)
        for name, w in weights.items()
    }
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def stage(tmp_path: Path) -> DialStage:
    """With trained models in their places."""
    found = dials(graph(tmp_path))["dial/plain_0.6/seed0"]
    for number, folder in enumerate((*found.settings.experts, found.settings.shared)):
        specialist(Path(folder), number)
    return found


def test_a_stopped_point_goes_on_and_ends_in_the_report(stage: DialStage, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        stage._work(Display(quiet=True), stop)
    assert not stage.is_whole()
    with pytest.raises(Stopped):  # after the first tensors of the merge, or before the first model
        stage._work(Display(quiet=True), stop)
    (stage.folder / "rows.jsonl").write_text('{"model": "base", "dom')  # as a kill tears it
    stage._work(Display(quiet=True), threading.Event())
    assert stage.is_whole() and {path.name for path in stage.folder.iterdir()} == {"dial.json", "rows.jsonl"}
    point = json.loads(stage.result.read_text())
    assert point["cosine"] == pytest.approx(0.6, abs=1e-3)
    asked = {(row["model"], row["domain"]) for row in point["rows"]}
    assert asked == {
        *((model, domain) for model in ("base", "amm", "average") for domain in ("math", "ocr")),
        ("expert_0", "math"),
        ("expert_1", "ocr"),
    }
    assert all(len(row["right"]) == len(row["tokens"]) == 8 for row in point["rows"])
    found = RecipeStageRow(
        id=stage.id, kind="dial", name=stage.name, seed=0, folder=str(stage.folder), fingerprint="", state="done"
    )
    cases, remarks = read_dial(Recipe(tmp_path, "dial", "", True, (found,), ()))
    assert not remarks and list(cases[0].points[0].retention) == ["base", "amm", "average"]
    assert set(cases[0].points[0].lead) == {"base", "average"}


def test_experts_as_trained_are_measured_where_they_lie(tmp_path: Path) -> None:
    stage = dials(graph(tmp_path))["dial/real/seed0"]
    for number, folder in enumerate(stage.settings.experts):
        specialist(Path(folder), number)
    stage._work(Display(quiet=True), threading.Event())
    point = json.loads(stage.result.read_text())
    assert not point["planted"] and abs(point["cosine"]) < 0.1 and len(point["rows"]) == 8
    assert all((Path(folder) / "model.safetensors").is_file() for folder in stage.settings.experts)


def test_planted_folders_are_models_with_the_planted_cosine(tmp_path: Path, stage: DialStage) -> None:
    point = stage.settings
    outputs = [tmp_path / "a", tmp_path / "b"]
    write_planted(
        base_model_folder(), [Path(each) for each in point.experts], Path(point.shared), 0.3, point.case, outputs
    )
    base, *planted = (load_file(folder / "model.safetensors") for folder in (base_model_folder(), *outputs))
    assert all((folder / "tokenizer.json").is_file() for folder in outputs)
    for name, weight in base.items():
        first, second = ((each[name] - weight.float()).double().flatten() for each in planted)
        cosine = float(first @ second / (first.norm() * second.norm()))
        # a weight in float32 keeps its task vector to some digits
        assert cosine == pytest.approx(0.3, abs=0.02), name


def test_a_case_with_other_settings_is_another_stage(tmp_path: Path) -> None:
    before, after = dials(graph(tmp_path)), dials(graph(tmp_path, "dial.cases.plain.opposed=0.25"))
    changed = {name for name, stage in after.items() if stage.fingerprint != before[name].fingerprint}
    assert changed == {"dial/plain_0/seed0", "dial/plain_0.6/seed0"}
