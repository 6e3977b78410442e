"""A recipe's graph: which stages there are, what a change runs again, and what runs side by side."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tinyr1v_ray.cluster.assignment import Node
from tinyr1v_ray.cluster.placement import ActorSpec, Placement
from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.errors import ConfigError, DataError, LearnerError, ModelError, RunFolderError
from tinyr1v_ray.jobs.recipe.graph import build_graph
from tinyr1v_ray.jobs.recipe.index import Index, State
from tinyr1v_ray.jobs.recipe.schedule import run_stages
from tinyr1v_ray.jobs.recipe.stage import recipe_folder

RECIPE = {
    "name": "small",
    "train": {"run": {"num_steps": 2}, "model": {"max_length": 384}, "rollout": {"max_tokens": 96}},
    "trainings": {
        "math": {"settings": {"data": {"train": ["miniature:math"]}}},
        "ocr": {"settings": {"data": {"train": ["miniature:ocr"], "domain": "ocr"}}},
        "then_ocr": {
            "start_from": "math",
            "settings": {"data": {"train": ["miniature:ocr"], "domain": "ocr"}},
        },
        "sweep": {
            "seeds": [1],
            "settings": {"data": {"train": ["miniature:math"]}, "algorithm": {"lipo": {"boost": 0.9}}},
        },
    },
    "merge": {"experts": ["math", "ocr"], "methods": {"amm": {}, "ties": {"name": "ties"}}},
    "evaluate": {"benchmarks": ["miniature:math"], "model": {"max_length": 384}, "sampling": {"max_tokens": 96}},
}


def graph(tmp_path, *overrides, **changes):
    tree = {**RECIPE, **changes, "folder": str(tmp_path)}
    return build_graph(parse_settings(PipelineConfig, tree, overrides))


def make_whole(stage):
    """What a finished stage leaves last."""
    last = {
        "train": ["export/config.json", "export/model.safetensors"],
        "merge": [f"{name}/{file}" for name in ("amm", "ties") for file in ("merge.json", "model.safetensors")],
        "evaluate": ["scores.json"],
    }
    for name in last[stage.kind]:
        (stage.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (stage.folder / name).touch()


def opened(tmp_path):
    """A recipe whose folder is there: an index that knows nothing yet, however often, and the graph."""
    config = parse_settings(PipelineConfig, {**RECIPE, "folder": str(tmp_path)})
    (recipe_folder(config) / "stages").mkdir(parents=True)
    found = build_graph(config)
    return lambda: Index(recipe_folder(config), config, found), found


def begin(index, stage):
    asyncio.run(index.begin(stage))


def partial(stage):
    """Where a merge works until it is finished."""
    return stage.folder.with_name(f".{stage.folder.name}.partial")


def fingerprints(of):
    return {stage.id: stage.fingerprint for stage in of.stages}


def test_every_stage_comes_after_what_it_needs_and_every_model_is_evaluated(tmp_path):
    found = graph(tmp_path, "seeds=[0,1]")
    seen = set()
    for stage in found.stages:
        assert set(stage.needs) <= seen
        seen.add(stage.id)
    names = {(model.name, model.seed) for model in found.models}
    assert names == {
        *((name, seed) for name in ("base", "math", "ocr", "then_ocr", "amm", "ties") for seed in (0, 1)),
        ("sweep", 1),
    }
    assert set(found.evaluated_by) == names and set(found.evaluated_by.values()) <= seen
    by_id = {stage.id: stage for stage in found.stages}
    assert by_id["merge/specialists/seed1"].needs == ("train/math/seed1", "train/ocr/seed1")
    assert by_id["train/then_ocr/seed0"].needs == ("train/math/seed0",)
    assert by_id["train/then_ocr/seed0"].settings.model.path == str(by_id["train/math/seed0"].folder / "export")
    assert by_id["train/math/seed1"].settings.run.seed == 1


def test_the_bases_greedy_answers_are_drawn_once_for_all_seeds(tmp_path):
    of = graph(tmp_path, "seeds=[0,1]").evaluated_by
    assert of["base", 0] == of["base", 1] and of["math", 0] != of["math", 1]
    sampled = graph(tmp_path, "seeds=[0,1]", "evaluate.sampling.temperature=1.0").evaluated_by
    assert sampled["base", 0] != sampled["base", 1]


def test_two_trainings_with_equal_settings_are_two_models_and_are_evaluated_each(tmp_path):
    found = graph(
        tmp_path, trainings={"math": RECIPE["trainings"]["math"], "again": RECIPE["trainings"]["math"]}, merge={}
    )
    stages = {stage.id: stage for stage in found.stages}
    for name in ("math", "again"):
        assert stages[found.evaluated_by[name, 0]].needs == (f"train/{name}/seed0",)


EVALUATIONS = {f"evaluate/{name}" for name in ("base", "math", "ocr", "then_ocr", "amm", "ties")}
MERGED = {"merge/specialists", "evaluate/amm", "evaluate/ties"}


@pytest.mark.parametrize(
    "change, rerun",
    [
        ("trainings.ocr.settings.run.num_steps=3", MERGED | {"train/ocr", "evaluate/ocr"}),
        (
            "trainings.math.settings.run.num_steps=3",
            MERGED | {"train/math", "evaluate/math", "train/then_ocr", "evaluate/then_ocr"},
        ),
        ("merge.methods.ties.density=0.3", MERGED),
        ("evaluate.num_items=7", EVALUATIONS),
        ("cluster.num_cpus=3", set()),
        ("merge.job.num_workers=2", set()),
        ("train.telemetry.tensorboard=false", set()),
        ("evaluate.engine.num_engines=2", set()),
        ("name=other", set()),
        ("train.rollout.start_timeout_s=700", set()),
        ("evaluate.judge.model=m evaluate.judge.url=http://h", EVALUATIONS),
    ],
)
def test_a_changed_setting_runs_exactly_what_depends_on_it(tmp_path, change, rerun):
    before, after = fingerprints(graph(tmp_path)), fingerprints(graph(tmp_path, *change.split()))
    assert {name for name in after if before[name] != after[name]} == {f"{name}/seed0" for name in rerun}


def test_an_input_with_other_content_is_another_input(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text('{"question": "1+1?", "answer": "2"}\n')
    tree = {"ocr": {"settings": {"data": {"train": [str(file)], "image_column": ""}}}}
    before = graph(tmp_path, trainings=tree, merge={})
    file.write_text('{"question": "1+2?", "answer": "3"}\n')
    from tinyr1v_ray.jobs.recipe import identity

    identity.content.cache_clear()
    after = graph(tmp_path, trainings=tree, merge={})
    changed = {name for name, value in fingerprints(after).items() if fingerprints(before)[name] != value}
    assert changed == {"train/ocr/seed0", "evaluate/ocr/seed0"}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"trainings": {"a": {"settings": {"run": {"s": 1}}}}, "merge": {}}, "trainings.a: config: unknown key"),
        ({"merge": {"experts": ["maths"], "methods": {"amm": {}}}}, "merge.experts names 'maths'"),
        ({"merge": {"experts": ["math"], "methods": {"math": {}}}}, "'math' names two models"),
        ({"merge": {"experts": ["sweep"], "methods": {"amm": {}}}}, "not trained with every seed"),
        ({"merge": {"experts": ["math"]}}, "merge has experts or methods alone"),
        ({"trainings": {"a": {"start_from": "b"}, "b": {"start_from": "a"}}, "merge": {}}, "a -> b -> a"),
        ({"evaluate": {"benchmarks": ["mathvist"]}}, "mathvista"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [0, 0]}, "has one twice"),
        ({"train": {"run": 5}}, "run is '5'; it is a section of settings"),
        ({"train": {"model": [1]}}, "model is '[1]'"),
        ({"train": {"run": None}}, "run is 'None'"),
        ({"train": {"run": {"seed": 5}}}, "run.seed is set; it is the recipe's own; remove it, and set seeds"),
        ({"train": {"checkpoint": {"export": False}}}, "checkpoint.export is set"),
        ({"train": {"telemetry": {"progress": False}}}, "telemetry.progress is set"),
        ({"evaluate": {"benchmarks": ["miniature:math"], "output": "x"}}, "output is set"),
        ({"evaluate": {"benchmarks": ["miniature:math"], "progress": True}}, "progress is set"),
        ({"merge": {**RECIPE["merge"], "job": {"ray_address": "h:1"}}}, "own; remove it, and set cluster.address"),
        ({"evaluate": {"benchmarks": ["miniature:math"], "model": 7}}, "model is '7'"),
        ({"trainings": {"math": {"seeds": []}}}, "seeds"),
        ({"merge": {"experts": ["math"], "methods": {"base": {}}}}, "'base' names two models"),
        ({"name": "../up"}, "name"),
        ({"trainings": {"../up": {}}, "merge": {}}, "trainings"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused_with_its_part_named(tmp_path, changes, said):
    with pytest.raises(ConfigError) as refused:
        graph(tmp_path, **changes)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"base": "/no/such"}, "model '/no/such' is no folder"),
        ({"base": "/etc"}, "has no configuration"),
        ({"train": {"data": {"evaluation": ["/no/such.parquet"]}}}, "/no/such.parquet"),
    ],
)
def test_an_input_that_is_not_there_is_refused_before_anything_runs(tmp_path, changes, said):
    with pytest.raises((DataError, ModelError)) as refused:
        graph(tmp_path, **changes)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_training_that_no_seed_reaches_is_said_to_be_left_out(tmp_path):
    assert graph(tmp_path).remarks == ("trainings.sweep is left out: its seeds [1] are none of the recipe's [0]",)
    assert graph(tmp_path, "seeds=[0,1]").remarks == ()


def test_a_study_of_one_seed_is_said_to_decide_nothing(tmp_path: Path) -> None:
    study = ("study.reference=a", "study.methods.a=[ocr]", "study.methods.b=[sweep]", "trainings.sweep.seeds=null")
    [remark] = graph(tmp_path, *study).remarks
    assert remark.startswith("study has one seed, which decides nothing")
    assert graph(tmp_path, *study, "seeds=[0,1]").remarks == ()


def test_a_benchmark_without_its_file_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(DataError, match="mme"):
        graph(tmp_path, evaluate={"benchmarks": ["mme"], "data": str(tmp_path)})


def test_done_stages_are_found_again_and_a_changed_recipe_does_not_forget_them(tmp_path):
    new_index, found = opened(tmp_path)
    index, stage, folder = new_index(), found.stages[0], found.stages[0].folder.parents[1]
    assert index.states[stage.id] is State.WAITING
    begin(index, stage)
    make_whole(stage)
    index.finish(stage)
    assert new_index().states[stage.id] is State.DONE
    changed = parse_settings(PipelineConfig, {**RECIPE, "folder": str(tmp_path)}, ["train.run.num_steps=3"])
    assert set(Index(folder, changed, build_graph(changed)).states.values()) == {State.WAITING}
    assert new_index().states[stage.id] is State.DONE
    rows = json.loads((folder / "recipe.json").read_text())
    roles = {row["name"]: row["role"] for row in rows["models"]}
    assert [roles[name] for name in ("base", "math", "then_ocr", "amm")] == ["base", "specialist", "baseline", "merged"]
    assert all(not Path(row["evaluation"]).is_absolute() for row in rows["models"])


@pytest.mark.parametrize("kind, damaged, gone, kept", [
    ("train", "export/model.safetensors", "export", "checkpoints"),
    ("merge", "ties/model.safetensors", "", ""),
    ("evaluate", "scores.json", "scores.json", "answers"),
])  # fmt: skip
def test_a_damaged_result_is_made_again_of_what_the_stage_has(tmp_path, kind, damaged, gone, kept):
    new_index, found = opened(tmp_path)
    index = new_index()
    for stage in found.stages:
        begin(index, stage)
        make_whole(stage)
        index.finish(stage)
    stage = next(stage for stage in found.stages if stage.kind == kind)
    (stage.folder / "checkpoints").mkdir()
    (stage.folder / "answers").mkdir()
    (stage.folder / damaged).unlink()
    index = new_index()
    assert index.states[stage.id] is State.WAITING
    begin(index, stage)
    assert not (stage.folder / gone).exists(), "nothing damaged is taken for the result"
    assert not kept or (stage.folder / kept).exists()


def test_a_result_that_cannot_be_removed_ends_the_recipe(tmp_path, monkeypatch):
    new_index, found = opened(tmp_path)
    stage = found.stages[0]
    begin(new_index(), stage)
    make_whole(stage)
    (stage.folder / "export" / "config.json").unlink()

    def refuse(folder, *_, **__):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(RunFolderError, match="export cannot be removed: Permission denied; it is damaged"):
        begin(new_index(), stage)


def placed(num_cpus, num_gpus=0.0):
    """One actor."""
    return Placement((ActorSpec("rollout", 0, num_cpus, num_gpus, 1),), (), ())


def run(found, total, work):
    """Order of events when every stage needs one core."""
    events = []

    async def carry_out(stage):
        events.append(("begin", stage.id))
        await work(stage)
        events.append(("end", stage.id))

    placements = {stage.id: placed(1.0) for stage in found.stages}
    asyncio.run(run_stages(found.stages, placements, lambda: [Node(total, [])], carry_out))
    return events


@pytest.mark.parametrize("total, most", [(1.0, 1), (2.0, 2), (100.0, 6), (0.5, 1)])
def test_stages_run_side_by_side_as_far_as_they_fit(tmp_path, total, most):
    found = graph(tmp_path)
    at_once, largest = 0, 0
    done = set()
    needs = {stage.id: stage.needs for stage in found.stages}
    for what, name in run(found, total, lambda stage: asyncio.sleep(0.001)):
        at_once += 1 if what == "begin" else -1
        largest = max(largest, at_once)
        if what == "begin":
            assert set(needs[name]) <= done
        else:
            done.add(name)
    assert done == set(needs) and largest <= most
    assert largest == most or total == 100.0


@pytest.mark.parametrize("nodes, at_once", [([6], 3), ([4, 2], 3), ([3, 3], 2), ([1] * 6, 1)])
def test_an_actor_finds_room_on_one_node_not_on_two(tmp_path, nodes, at_once):
    """Stages of one actor with two GPUs, on clusters of six; where an actor fits nowhere, its stage runs by itself."""
    trainings = dict.fromkeys("abc", RECIPE["trainings"]["math"])
    found = [stage for stage in graph(tmp_path, trainings=trainings, merge={}).stages if stage.kind == "train"]
    running, most = 0, 0

    async def carry_out(stage):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    placements = {stage.id: placed(1.0, 2.0) for stage in found}
    asyncio.run(run_stages(found, placements, lambda: [Node(9.0, [1.0] * gpus) for gpus in nodes], carry_out))
    assert most == at_once


def test_a_failed_stage_ends_the_others_and_is_the_error(tmp_path):
    cancelled = []

    async def work(stage):
        if stage.name == "ocr":
            raise LearnerError("the learner is broken; it may not be; mend it")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(stage.id)
            raise

    with pytest.raises(LearnerError, match="broken"):
        run(graph(tmp_path), 2.0, work)
    assert cancelled == ["train/math/seed0"]


def test_what_was_made_of_a_result_that_is_made_again_is_made_again_too(tmp_path):
    new_index, found = opened(tmp_path)

    def run_waiting(only=lambda stage: True):
        index, run_now = new_index(), []
        for stage in found.stages:
            if index.states[stage.id] is not State.DONE and only(stage):
                begin(index, stage)
                run_now.append(stage.id)
                old = [folder / "old" for folder in (stage.folder, partial(stage))]
                assert not any(path.exists() for path in old), "nothing of the old result is left to go on with"
                make_whole(stage)
                for path in old if stage.kind == "merge" else old[:1]:
                    path.parent.mkdir(exist_ok=True)
                    path.touch()
                index.finish(stage)
        return set(run_now)

    assert len(run_waiting()) == len(found.stages) and run_waiting() == set()
    by_id = {stage.id: stage for stage in found.stages}
    shutil.rmtree(by_id["train/math/seed0"].folder)
    assert run_waiting(lambda stage: stage.id == "train/math/seed0") == {"train/math/seed0"}  # and then it is killed
    later = {
        "train/then_ocr",
        "merge/specialists",
        "evaluate/math",
        "evaluate/then_ocr",
        "evaluate/amm",
        "evaluate/ties",
    }
    assert run_waiting() == {f"{name}/seed0" for name in later}
    assert run_waiting() == set()


@pytest.mark.parametrize("kind, left", [
    ("train", lambda stage: stage.folder / "checkpoints"),
    ("merge", partial),
    ("evaluate", lambda stage: stage.folder / "miniature_math"),
])  # fmt: skip
def test_a_killed_stage_goes_on_with_what_it_has(tmp_path, kind, left):
    new_index, found = opened(tmp_path)
    stage = next(stage for stage in found.stages if stage.kind == kind)
    begin(new_index(), stage)
    left(stage).mkdir(parents=True)
    begin(new_index(), stage)
    assert left(stage).exists()


def test_a_folder_that_the_recipe_did_not_make_is_left_alone(tmp_path):
    new_index, found = opened(tmp_path)
    found.stages[0].folder.mkdir()
    with pytest.raises(RunFolderError, match="move the folder away"):
        begin(new_index(), found.stages[0])
    assert found.stages[0].folder.is_dir()


def test_an_interrupted_stage_waits_and_a_broken_one_has_failed(tmp_path):
    new_index, found = opened(tmp_path)
    index, stage = new_index(), found.stages[0]
    for error, state in ((asyncio.CancelledError(), State.WAITING), (LearnerError("x"), State.FAILED)):
        begin(index, stage)
        index.give_up(stage, error)
        assert index.states[stage.id] is state


def test_a_merge_runs_alone(tmp_path):
    found = graph(tmp_path, "seeds=[0,1]")
    placements = {stage.id: None if stage.kind == "merge" else placed(1.0) for stage in found.stages}
    running, beside = set(), []

    async def carry_out(stage):
        running.add(stage.id)
        beside.append((stage.id, set(running)))
        await asyncio.sleep(0.001)
        running.remove(stage.id)

    asyncio.run(run_stages(found.stages, placements, lambda: [Node(4.0, [])], carry_out))
    assert all(len(names) == 1 for name, names in beside if name.startswith("merge/"))
    assert all(name.startswith("merge/") or not any(n.startswith("merge/") for n in names) for name, names in beside)
    assert len(beside) == len(found.stages)


def test_what_the_report_says_that_a_model_is_trained_on(tmp_path):
    table = {"data": {"train": ["a/b:train", "c/d:train[:9]"], "domain": "math"}}
    trainings = {
        "tables": {"settings": table},
        "named": {"settings": table, "domains": ["math", "ocr"]},
        "mixture": {"settings": {"data": {"train": ["miniature:math", "miniature:ocr"]}}},
    }
    config = parse_settings(PipelineConfig, {**RECIPE, "folder": str(tmp_path), "trainings": trainings, "merge": {}})
    found = build_graph(config)
    trained = {stage.name: stage for stage in found.stages if stage.kind == "train"}
    domains = {model.name: trained[model.name].describe(model, config)["domains"] for model in found.models[1:]}
    assert domains == {"tables": ["math"], "named": ["math", "ocr"], "mixture": ["math", "ocr"]}


def test_the_index_says_how_many_training_steps_went_into_each_model(tmp_path):
    index, _ = opened(tmp_path)
    index().write()
    rows = json.loads((tmp_path / "small" / "recipe.json").read_text())["models"]
    steps = {row["name"]: row["steps"] for row in rows}
    assert steps == {"base": 0, "math": 2, "ocr": 2, "then_ocr": 4, "amm": 4, "ties": 4}
