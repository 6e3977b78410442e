"""What a user types wrong is said in one line; what is right survives a round trip; the schema stays within budget."""

import re
from pathlib import Path

import pytest

from tinyr1v_ray.config.base import (
    Settings,
    known_keys,
    load_settings,
    parse_settings,
    put_over,
    read_yaml,
    write_settings,
)
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.kinds import SCHEMAS, kind_of_config
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
MINIMAL = {"run": {"name": "a"}, "data": {"train": ["miniature:ocr"]}}


def train(*overrides):
    return parse_settings(TrainConfig, MINIMAL, overrides)


def leaves(schema):
    keys = list(known_keys(schema))
    return [key for key in keys if not any(other.startswith(key + ".") for other in keys)]


def test_every_shipped_config_parses():
    paths = sorted(CONFIGS.rglob("*.yaml"))
    assert paths
    for path in paths:
        assert load_settings(SCHEMAS[kind_of_config(read_yaml(path), path.name)], path), path


def test_overrides_are_applied_in_order_and_typed():
    config = train("algorithm.lipo.boost=0.5", "algorithm.lipo.boost=1e-1", "data.train=[a,b]", "run.num_steps=7")
    assert (config.algorithm.lipo.boost, config.data.train, config.run.num_steps) == (0.1, ("a", "b"), 7)
    assert train().algorithm.lipo.boost == 0.2
    assert train("data.system_prompt=a=b").data.system_prompt == "a=b"
    assert train("reward.format_weights.ocr=0.3").reward.format_weights == {"ocr": 0.3}


def test_a_file_and_overrides(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("run: {name: b}\ndata: {train: [x.parquet]}\nlearner:\n  learning_rate: 1e-4\n")
    config = load_settings(TrainConfig, path, ["run.seed=3"])
    assert (config.run.name, config.run.seed, config.learner.learning_rate) == ("b", 3, 1e-4)


def test_a_tilde_is_the_home_in_every_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = train("run.folder=~/runs", "model.path=~/base", "weights.folder=~/w")
    folders = (config.run.folder, config.model.path, config.weights.folder)
    assert folders == ("/home/me/runs", "/home/me/base", "/home/me/w")
    tree = {"base": "~/base", "experts": ["~/a", "b~"], "output": "~/merged"}
    merge = parse_settings(MergeConfig, tree)
    assert (merge.base, merge.experts, merge.output) == ("/home/me/base", ("/home/me/a", "b~"), "/home/me/merged")
    tree = {"benchmarks": ["ten"], "data": "~/tables", "output": "~/answers"}
    evaluation = parse_settings(EvaluateConfig, tree)
    assert (evaluation.data, evaluation.output) == ("/home/me/tables", "/home/me/answers")
    recipe = parse_settings(PipelineConfig, {"name": "a", "trainings": {"b": {}}, "folder": "~", "base": "~/base"})
    assert (recipe.folder, recipe.base) == ("/home/me", "/home/me/base")


def test_the_resolved_config_reads_back_equal(tmp_path):
    config = train("learner.learning_rate=1e-6", "reward.format_weights.ocr=0.3", "data.answer_column='007'")
    write_settings(config, tmp_path / "config.yaml")
    assert load_settings(TrainConfig, tmp_path / "config.yaml") == config
    assert set(leaves(TrainConfig)) <= set(flat(read_yaml(tmp_path / "config.yaml"))) | {"reward.format_weights"}


def flat(tree, prefix=""):
    for key, value in tree.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [prefix + key]


@pytest.mark.parametrize(
    "override, says",
    [
        ("algorithm.lipo.bosst=1", "unknown key algorithm.lipo.bosst; .* did you mean algorithm.lipo.boost?"),
        ("rolout.num_engines=2", "unknown key rolout; .* did you mean rollout?"),
        ("run.num_step=2", "unknown key run.num_step; .* did you mean run.num_steps?"),
        ("qqqq=1", "unknown key qqqq; every key must be known"),
        ("rollout.num_completions=1", "num_completions is 1; .* at least 2; set rollout.num_completions=2"),
        ("rollout.num_completions=many", "rollout.num_completions is 'many'; input should be a valid integer"),
        ("run.num_steps=1.5", "run.num_steps is 1.5; input should be a valid integer"),
        ("run.num_steps=0", "run.num_steps is 0; input should be greater than 0"),
        ("learner.learning_rate=-1", "learner.learning_rate is -1; input should be greater than 0"),
        ("learner.zero_stage=1", "learner.zero_stage is 1; input should be 0, 2 or 3"),
        ("algorithm.lipo.boost=nan", "algorithm.lipo.boost is 'nan'; input should be a finite number"),
        ("algorithm.lipo.boost=-0.1", "algorithm.lipo.boost is -0.1; input should be greater than or equal to 0"),
        ("algorithm.lipo.pairs=some", "algorithm.lipo.pairs is 'some'; input should be 'adjacent' or 'all'"),
        ("algorithm.name=ppo", "algorithm.name is 'ppo'; input should be 'lipo', .* 'dler' or 'function'; change it"),
        ("algorithm.name=function", "function is '' with name function; .* go together; set function alone or none"),
        ("algorithm={name: grpo, function: 'a:f'}", "function is 'a:f' with name grpo; name function and a function"),
        ("algorithm.quality_first.beta=-0.1", "beta is -0.1; input should be greater than or equal to 0; change it"),
        (
            "algorithm.quality_first.controller=pid",
            "controller is 'pid'; input should be 'pass_rate', 'ramp' or 'fixed'",
        ),
        ("algorithm.quality_first.window=0", "window is 0; input should be greater than 0"),
        ("algorithm.ddca.beta=-1", "algorithm.ddca.beta is -1; input should be greater than or equal to 0"),
        ("algorithm.length_penalty.alpha=1", "algorithm.length_penalty.alpha is 1; input should be less than 1"),
        ("algorithm.dler.length_limit=0", "algorithm.dler.length_limit is 0; input should be greater than 0"),
        ("algorithm.lipo=3", "algorithm.lipo is 3; input should be"),
        ("run.name=../elsewhere", "run.name is '../elsewhere'; string should match"),
        ("data.train=[]", "data.train is empty; .* name a file"),
        ("data.question_template=none", "must hold {question} once"),
        ("model.min_pixels=9999999", "min_pixels 9999999 is above max_pixels"),
        ("model.trust_remote_code=true", "model.trust_remote_code is True; input should be False"),
        ("rollout.max_tokens=4096", "rollout.max_tokens 4096 leaves no room for a prompt"),
        ("learner.num_minibatches=3", "run.num_prompts_per_step 512 is not a multiple of learner.num_minibatches 3"),
        ("weights.backend=nccl", "nccl and ipc are for engines on GPUs"),
        ("placement.sleep_level=3", "placement.sleep_level is 3; input should be 1 or 2"),
        ("no_equals_sign", "override 'no_equals_sign' has no '='"),
        ("=3", "override '=3' has no '='"),
        ("run.name=[", "cannot be applied"),
        (".a=1", "override '.a=1' has a dot without a name beside it"),
        ("run..seed=1", "override 'run..seed=1' has a dot without a name"),
        ("data.train=[]", "^config: data.train is empty"),
        ("run.seed=4294967296", "run.seed is 4294967296; input should be less than or equal to 4294967295"),
        ("run.seed=true", "run.seed is True; input should be a number, not true or false"),
        ("learner.zero_stage=false", "learner.zero_stage is False; input should be a number"),
        ("learner.adam_betas=[true,0.9]", "learner.adam_betas is .True, 0.9.; input should be a number"),
        ("reward.format_weights.ocr=true", "reward.format_weights is .*; input should be a number"),
        ("learner.adam_betas=[0.9,1.0]", "learner.adam_betas.1 is 1.0; input should be less than 1"),
        ("learner.adam_betas=[-0.1,0.9]", "learner.adam_betas.0 is -0.1; input should be greater than or equal to 0"),
        ("run.seed=" + "9" * 400, "run.seed is 999.*; input should be below 2.63"),
        ("run.seed=" + "9" * 5000, "cannot be applied|run.seed is"),
        ("rollout.num_engines=5000", "rollout.num_engines is 5000; input should be less than or equal to 4096"),
        ("run.name=" + "[" * 3000, "cannot be applied: (it is nested too deeply|while parsing)"),
        ("run.name=" + "a" * 200_000, "run.name is 'aaaa.* ... .*aaa'; string should"),
        ("data.question_template=" + "a" * 200_000, "question_template 'aaa.* must hold {question} once; add"),
        ("a" * 200_000 + "=1", "unknown key aaa"),
        ("run.name=${oc.env:HOME}", "run.name is '\\${oc.env:HOME}'; string should match"),
    ],
)
def test_a_wrong_setting_is_one_line_with_exit_code_2(override, says):
    with pytest.raises(ConfigError, match=says) as caught:
        train(override)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    "schema, key, near",
    [
        (PipelineConfig, "merge.methods.mine.nam", "merge.methods.mine.name"),
        (PipelineConfig, "merge.methods.mine.amm.step", "merge.methods.mine.amm.steps"),
        (PipelineConfig, "trainings.ocr.start_form", "trainings.ocr.start_from"),
        (MergeConfig, "methods.mine.nam", "methods.mine.name"),
        (EvaluateConfig, "user.mine.metrc", "user.mine.metric"),
    ],
)
def test_suggestions_go_into_sections_that_the_user_names(schema, key, near):
    tree = {"base": "a", "output": "b"} if schema is MergeConfig else {}
    if schema is PipelineConfig:
        tree = {"name": "a", "trainings": {"ocr": {}}}
    if schema is EvaluateConfig:
        tree = {"benchmarks": ["mine"], "user": {"mine": {"file": "a.tsv", "metric": "exact"}}}
    with pytest.raises(ConfigError, match=f"unknown key {key}; .* did you mean {near}?"):
        parse_settings(schema, tree, [f"{key}=1"])


@pytest.mark.parametrize(
    "schema, old, new",
    [
        (MergeConfig, "recipe.method=ties", "method.name"),
        (MergeConfig, "recipe.amm.steps=3", "method.amm.steps"),
        (MergeConfig, "recipes.mine.method=ties", "methods.mine.name"),
        (MergeConfig, "method.method=ties", "method.name"),
        (MergeConfig, "methods.mine.method=ties", "methods.mine.name"),
        (PipelineConfig, "merge.recipes.mine.method=ties", "merge.methods.mine.name"),
        (PipelineConfig, "merge.recipes.mine.density=0.3", "merge.methods.mine.density"),
        (PipelineConfig, "merge.methods.mine.method=ties", "merge.methods.mine.name"),
    ],
)
def test_a_key_of_an_older_version_is_refused_and_its_name_said(schema, old, new):
    tree = {"base": "a", "output": "b"} if schema is MergeConfig else {"name": "a", "trainings": {"ocr": {}}}
    said = f"unknown key {old.partition('=')[0]}; it is called {new}; rename it"
    with pytest.raises(ConfigError, match=re.escape(said) + "$"):
        parse_settings(schema, tree, [old])


def test_only_a_schema_that_has_the_new_name_says_it():
    with pytest.raises(ConfigError, match="unknown key recipe;") as caught:
        train("recipe.method=ties")
    assert "it is called" not in str(caught.value)


def test_a_seed_of_another_command_is_bounded_too():
    for schema, tree in (
        (EvaluateConfig, {"benchmarks": ["mme"], "sampling": {"seed": 2**32}}),
        (MergeConfig, {"base": "a", "output": "b", "method": {"seed": 2**32}}),
    ):
        with pytest.raises(ConfigError, match="seed is 4294967296; input should be less than or equal to 4294967295"):
            parse_settings(schema, tree)


SHARED = ["placement.colocate=true", "learner.num_ranks=8", "rollout.num_engines=8", "weights.backend=ipc"]
SHARED += ["rollout.num_gpus_per_engine=1", "learner.num_gpus_per_rank=1"]


@pytest.mark.parametrize(
    "overrides, says",
    [
        ([], None),
        (["rollout.num_gpus_per_engine=2", "rollout.num_engines=4", "placement.sleep_level=2"], None),
        (
            ["run.max_staleness=1"],
            r"colocate with run.max_staleness 1; engines sleep .* set run.max_staleness=0, or pl",
        ),
        (["weights.backend=nccl"], "nccl with placement.colocate; NCCL refuses two .* set weights.backend=ipc"),
        (["weights.backend=cpu_file"], "cpu_file with 1.0 GPUs per engine; nccl and ipc are for engines on GPUs"),
        (["placement.colocate=false"], "ipc without placement.colocate; .* or weights.backend=nccl"),
        (
            ["rollout.num_gpus_per_engine=3", "rollout.num_engines=3"],
            "engines over 3 GPUs and 8 learner ranks; .* set rollout.num_gpus_per_engine to one of 1, 2, 4, 8",
        ),
        (["rollout.num_engines=4"], "4 engines of 1 and 8 learner ranks; .* set rollout.num_engines=8"),
        (["rollout.num_gpus_per_engine=2"], "8 engines of 2 and 8 learner ranks; .* set rollout.num_engines=4"),
        (["learner.num_gpus_per_rank=0.5"], "1 GPUs per engine and 0.5 per learner rank; they share whole GPUs"),
        (["learner.num_gpus_per_rank=0"], "1 GPUs per engine and 0 per learner rank; they share whole GPUs"),
        (["rollout.num_gpus_per_engine=0.5"], "0.5 GPUs per engine and 1 per learner rank; they share whole GPUs"),
    ],
)
def test_what_shares_devices_must_agree(overrides, says):
    if says is None:
        assert train(*SHARED, *overrides).placement.colocate
        return
    with pytest.raises(ConfigError, match=says):
        train(*SHARED, *overrides)


def test_on_the_cpu_an_engine_keeps_its_weights_when_it_sleeps():
    assert train("placement.colocate=true").placement.sleep_level == 1
    with pytest.raises(ConfigError, match=r"sleep_level 2 with engines on the CPU; .* set placement.sleep_level=1"):
        train("placement.colocate=true", "placement.sleep_level=2")


@pytest.mark.parametrize("part", ["rollout.num_gpus_per_engine=0.5", "learner.num_gpus_per_rank=0.5"])
def test_nccl_is_refused_where_parts_of_a_gpu_are_given(part):
    whole = ["rollout.num_gpus_per_engine=1", "learner.num_gpus_per_rank=1", "weights.backend=nccl"]
    assert train(*whole).weights.backend == "nccl"
    with pytest.raises(ConfigError, match=r"NCCL refuses .* set placement.colocate=true and weights.backend=ipc"):
        train(*whole, part)


def test_contradictions_between_sections_are_said():
    with pytest.raises(ConfigError, match=r"a repeatable run is on-policy; set run\.max_staleness=0"):
        train("rollout.deterministic=true", "run.max_staleness=1")


def test_further_problems_are_counted():
    with pytest.raises(ConfigError, match=r"is (0|-1); .* \(1 more\)"):
        train("run.num_steps=0", "run.seed=-1")


def test_what_has_no_default_must_be_given():
    with pytest.raises(ConfigError, match="run is not set; it has no default"):
        parse_settings(TrainConfig, {})
    with pytest.raises(ConfigError, match=r"run\.name is not set"):
        parse_settings(TrainConfig, {"run": {}})


@pytest.mark.parametrize(
    "text, says",
    [
        ("- a\n- b\n", "holds a list; a config is a YAML mapping"),
        ("run: {name: [\n", "cannot be read"),
        ("run: {name: a}\nrun: {name: b}\n", "cannot be read"),
        ("3\n", "cannot be read: it holds a single value; a config is a YAML mapping"),
        ("a: " + "[" * 3000 + "]" * 3000, "cannot be read: it is nested too deeply"),
        ("run: {seed: " + "9" * 5000 + "}", "cannot be read"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path, text, says):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_settings(TrainConfig, path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_what_is_no_readable_file_is_named(tmp_path):
    for path, says in (
        (tmp_path / "none.yaml", "does not exist; --config names a YAML file"),
        (tmp_path, "is a folder; --config names a YAML file"),
        (Path(), "config file . is a folder"),
        (Path("/dev/null"), "is no plain file"),
        (Path("/proc/self/mem"), "cannot be read: Input/output error"),  # a file that opens and refuses to be read
        (tmp_path / ("a" * 300_000), "cannot be read: File name too long"),
    ):
        with pytest.raises(ConfigError, match=says) as caught:
            load_settings(TrainConfig, path)
        assert len(str(caught.value)) < 1000 and str(caught.value).count(";") == 2


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"run: \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(TrainConfig, path)


def test_an_empty_file_is_the_defaults(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("")
    overrides = ["run.name=a", "data.train=[miniature:ocr]"]
    assert load_settings(TrainConfig, path, overrides) == load_settings(TrainConfig, None, overrides) == train()


@pytest.mark.parametrize("schema", [TrainConfig, MergeConfig])
def test_settings_stay_within_budget(schema):
    assert len(leaves(schema)) <= 120
    assert max(key.count(".") + 1 for key in leaves(schema)) <= 3


def test_settings_are_frozen_and_explained():
    with pytest.raises(ValueError, match="frozen"):
        train().run.seed = 3

    def sections(schema):
        yield schema
        for field in schema.model_fields.values():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
                yield from sections(field.annotation)

    for section in sections(TrainConfig):
        assert section.__doc__ and section.__doc__ != Settings.__doc__
        for name, field in section.model_fields.items():
            is_section = isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
            assert is_section or field.description, f"{section.__name__}.{name} is not explained"


def test_flags_are_put_over_the_files_settings():
    tree = {"base": "a", "job": {"device": "cpu", "num_workers": 1}, "method": {"amm": {"steps": 3}}}
    flags = {("base",): "b", ("job", "num_workers"): 0, ("method", "name"): "ties", ("output",): None}
    assert put_over(tree, flags) == {
        "base": "b",
        "job": {"device": "cpu", "num_workers": 0},
        "method": {"amm": {"steps": 3}, "name": "ties"},
    }
    assert tree == {"base": "a", "job": {"device": "cpu", "num_workers": 1}, "method": {"amm": {"steps": 3}}}


def test_a_flag_makes_its_section_and_leaves_a_wrong_one_to_the_schema():
    assert put_over({"job": None}, {("job", "num_workers"): 0}) == {"job": {"num_workers": 0}}
    assert put_over({"job": "fast"}, {("job", "num_workers"): 0}) == {"job": "fast"}
    with pytest.raises(ConfigError, match="job is 'fast'"):
        parse_settings(MergeConfig, {"base": "a", "output": "b", "job": "fast"})
