"""Probe, run as a module: what a configuration of any kind names is there, by the checks of the command it is for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.folders import why_not_creatable
from tinyr1v_ray.config.kinds import AnyConfig, read_config
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.config.pipeline import PipelineConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.model_folder import check_context, check_model_folder, find_model_folder
from tinyr1v_ray.data.sources import SourceKind, parse_source
from tinyr1v_ray.doctor.finding import CheckResult, Status, write_result
from tinyr1v_ray.errors import RunFolderError, TinyR1VError
from tinyr1v_ray.evaluation.benchmarks.load import find_file
from tinyr1v_ray.jobs.evaluate.folder import output_folder
from tinyr1v_ray.jobs.evaluate.inputs import named_benchmarks
from tinyr1v_ray.jobs.recipe.graph import build_graph
from tinyr1v_ray.jobs.recipe.stage import recipe_folder
from tinyr1v_ray.jobs.train.inputs import check_settings
from tinyr1v_ray.merging.accounting import open_expert
from tinyr1v_ray.merging.checkpoint_folder import open_checkpoint
from tinyr1v_ray.planning.units import several

_HUB_TIMEOUT_S = 20.0


def check(path: Path, overrides: Sequence[str]) -> CheckResult:
    """What is there, or the first thing that is not."""
    try:
        return CheckResult(Status.OK, "found " + ", ".join(_inputs_of(read_config(path, overrides))))
    except (TinyR1VError, HfHubHTTPError, OSError, ValueError) as error:
        what, _, remedy = " ".join(str(error).split()).partition("; ")
        return CheckResult(Status.PROBLEM, what[:300], remedy or "correct the path or name in the configuration")


def _inputs_of(config: AnyConfig) -> list[str]:
    match config:
        case TrainConfig():
            model = _model(config.model.path, config.model)
            return [model, _data([config]), _folder(Path(config.run.folder, config.run.name))]
        case EvaluateConfig():
            model = _model(config.model.path, config.model)
            return [model, _benchmarks([config]), _folder(output_folder(config))]
        case MergeConfig():
            base = _found(config.base, open_checkpoint)
            experts = [open_expert(Path(expert)) for expert in config.experts]
            return [base, several(len(experts), "expert"), _folder(Path(config.output))]
        case PipelineConfig():
            settings = [stage.settings for stage in build_graph(config, read_inputs=False).stages]
            trainings = [each for each in settings if isinstance(each, TrainConfig)]
            evaluations = [each for each in settings if isinstance(each, EvaluateConfig)]
            models = [each.model for each in trainings] + [each.model for each in evaluations]
            base = _model(config.base, max(models, key=lambda model: model.max_length))
            return [base, _data(trainings), _benchmarks(evaluations), _folder(recipe_folder(config))]


def _model(name: str, settings: ModelSettings) -> str:
    def check_whole(folder: Path) -> None:
        check_model_folder(folder, settings.family)
        check_context(folder, settings.max_length)

    return _found(name, check_whole)


def _found(name: str, check_folder: Callable[[Path], object]) -> str:
    folder = find_model_folder(name)
    if folder is None:
        HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)
        return f"model {name} (on the hub)"
    check_folder(folder)
    return f"model {name}"


def _data(configs: Sequence[TrainConfig]) -> str:
    for config in configs:
        check_settings(config)
    texts = {text for config in configs for text in (*config.data.train, *config.data.evaluation)}
    for source in (parse_source(text, "train") for text in sorted(texts)):
        if source.kind is SourceKind.HUB:
            HfApi().dataset_info(source.location, timeout=_HUB_TIMEOUT_S)
    return several(len(texts), "data source")


def _benchmarks(configs: Sequence[EvaluateConfig]) -> str:
    named = {
        benchmark.name: (benchmark, Path(config.data)) for config in configs for benchmark in named_benchmarks(config)
    }
    for benchmark, folder in named.values():
        if benchmark.files:  # the miniature's are made
            find_file(benchmark, folder)
    return several(len(named), "benchmark")


def _folder(folder: Path) -> str:
    if reason := why_not_creatable(folder.absolute()):
        raise RunFolderError(f"{folder} cannot be made: {reason}; results are written there; name another folder")
    return f"{folder} ({'is there already' if folder.exists() else 'can be made'})"


def main() -> None:
    """Arguments: the file, then overrides."""
    write_result(check(Path(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()
