"""Everything a run reads, checked before anything is started: model, processor, prompts, canary."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tinyr1v_ray.algorithms.advantages import build_advantages
from tinyr1v_ray.cluster.connection import check_reachable, cluster_address
from tinyr1v_ray.config.folders import default_cache_folder
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.model_folder import check_model_name, resolve_model_folder
from tinyr1v_ray.data.processor import load_processor
from tinyr1v_ray.data.prompts import PromptTable, TableOptions, build_prompt_table
from tinyr1v_ray.data.sources import check_source
from tinyr1v_ray.rewards.score import build_scorer, check_domains
from tinyr1v_ray.telemetry.run_folder import check_new, check_resumable
from tinyr1v_ray.telemetry.sinks import import_wandb
from tinyr1v_ray.types import Prompt
from tinyr1v_ray.weight_sync.transports import TRANSPORTS

_logger = logging.getLogger(__name__)

MAX_CANARY_SEARCH = 1000
"""Items among which one with an image is looked for, so that the canary checks the vision tower too."""


@dataclass(frozen=True)
class RunInputs:
    """What a run reads. `held_out` are the items of summary and slice; `canary` has an image if any prompt has."""

    model_folder: Path
    train: PromptTable
    held_out: tuple[Prompt, ...]
    canary: Prompt
    stop_ids: tuple[int, ...]
    max_images: int


def check_cheaply(config: TrainConfig, run_folder: Path, resume: bool) -> None:
    """Refuse at once what needs neither Ray nor the data's contents; nothing is written.

    Where something is asked again later (a folder may be made meanwhile), it is by the same function.
    """
    (check_resumable if resume else check_new)(run_folder, config)
    check_model_name(config.model.path, config.model.family)
    check_settings(config)


def check_settings(config: TrainConfig) -> None:
    """The same of all but run folder and model, which need not be there yet: data, functions, sinks, environment."""
    for purpose, sources in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        for source in sources:
            check_source(source, purpose)
    build_scorer(config.reward)
    build_advantages(config.algorithm, config.rollout.max_tokens)
    if config.telemetry.wandb_project:
        import_wandb(config.telemetry.wandb_project)
    if cluster_address(config.cluster.address) is None:  # else it is a folder of other nodes
        TRANSPORTS[config.weights.backend].check_usable(config.weights)
    check_reachable(config.cluster)


def load_inputs(config: TrainConfig) -> RunInputs:
    """Read and check; raises ModelError, DataError and ConfigError."""
    model_folder = resolve_model_folder(config.model.path, config.model.family)
    processor = load_processor(model_folder, config.model)
    options = TableOptions(
        image_folder=Path(config.run.folder).absolute() / ".images",
        cache_folder=default_cache_folder(),
        max_prompt_tokens=config.model.max_length - config.rollout.max_tokens,
        seed=config.run.seed,
    )
    train = build_prompt_table(config.data, "train", processor, options)
    if processor.reads_images and config.model.train_vision and not train.max_images:
        _logger.warning(
            "no prompt has an image: of the vision tower, which %s has, weight decay alone would move the weights; "
            "a tower is trained on images; set model.train_vision=false",
            config.model.path,
        )
    build_scorer(config.reward)  # a user's function that cannot be imported is said here
    check_domains(config.reward, train.domains)
    held_out: tuple[Prompt, ...] = ()
    evaluation = config.evaluation
    num_held_out = max(evaluation.num_items, evaluation.num_slice_items if evaluation.every_n_steps else 0)
    if num_held_out and config.data.evaluation:
        table = build_prompt_table(config.data, "evaluation", processor, options)
        check_domains(config.reward, table.domains)
        held_out = tuple(table.in_order(num_held_out))
    canary = next((prompt for prompt in islice(train.in_order(), MAX_CANARY_SEARCH) if prompt.images), train[0])
    return RunInputs(
        model_folder=model_folder,
        train=train,
        held_out=held_out,
        canary=canary,
        stop_ids=processor.eos_token_ids,
        max_images=max(train.max_images, *(len(prompt.images) for prompt in held_out), 1),
    )
