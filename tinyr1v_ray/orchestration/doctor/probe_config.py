"""Probe, run as a module: the files that a configuration of train or merge names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from tinyr1v_ray.config.base import load_settings, read_yaml
from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.model_folder import check_context, check_model_folder
from tinyr1v_ray.data.sources import SourceKind, parse_source
from tinyr1v_ray.errors import TinyR1VError
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.orchestration.doctor.finding import Outcome, Status, write_outcome

_HUB_TIMEOUT_S = 20.0


def _model(config: TrainConfig) -> str:
    folder = base_model_folder() if config.model.path == "miniature" else Path(config.model.path).expanduser()
    if folder.is_dir():
        check_model_folder(folder)
        check_context(folder, config.model.max_length)
        return f"model {config.model.path} is complete"
    HfApi().model_info(config.model.path, timeout=_HUB_TIMEOUT_S)
    return f"model {config.model.path} is on the hub"


def _sources(config: TrainConfig) -> str:
    for purpose, texts in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        for text in texts:
            name = parse_source(text, purpose)
            if name.kind == SourceKind.FILE and not Path(name.location).is_file():
                raise FileNotFoundError(f"data source {text} does not exist; correct data.{purpose}")
            if name.kind == SourceKind.HUB:
                HfApi().dataset_info(name.location, timeout=_HUB_TIMEOUT_S)
    return f"{len(config.data.train) + len(config.data.evaluation)} data sources are there"


def _run_folder(config: TrainConfig) -> str:
    folder = Path(config.run.folder).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"run.folder {folder}: {existing} cannot be written")
    if (folder / config.run.name).exists():
        return f"run {config.run.name} exists (start another name, or --resume)"
    return f"{folder} can be written"


def _merge_folders(config: MergeConfig) -> str:
    for path in (config.base, *config.experts):
        if path != "miniature" and not Path(path).expanduser().is_dir():
            raise FileNotFoundError(f"folder {path} does not exist; correct base or experts, or train the expert first")
    return f"base and {len(config.experts)} experts are there"


def main() -> None:
    """Arguments: the file, then overrides."""
    seen: list[str] = []
    path, overrides = Path(sys.argv[1]), sys.argv[2:]
    try:
        if "base" in read_yaml(path):
            seen.append(_merge_folders(load_settings(MergeConfig, path, overrides)))
        else:
            config = load_settings(TrainConfig, path, overrides)
            seen += [_model(config), _sources(config), _run_folder(config)]
    except (TinyR1VError, HfHubHTTPError, OSError, ValueError) as error:
        what, _, remedy = " ".join(str(error).split()).partition("; ")
        write_outcome(Outcome(Status.PROBLEM, what[:300], remedy or "correct the path or name in the configuration"))
        return
    write_outcome(Outcome(Status.OK, ", ".join(seen)))


if __name__ == "__main__":
    main()
