"""The whole miniature in one folder: base model, data files and contact sheet.

OUTPUT/base/                      Hugging Face folder of the warmed-up model, with miniature.json
OUTPUT/data/DOMAIN/POOL.parquet   the nine data files
OUTPUT/contact_sheet.png          a few items of each domain
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.miniature.build import write_data_file
from tinyr1v_ray.miniature.contact_sheet import write_contact_sheet
from tinyr1v_ray.miniature.measure import MODES, measure
from tinyr1v_ray.miniature.model import make_model
from tinyr1v_ray.miniature.processor import make_processor
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool
from tinyr1v_ray.miniature.tokenizer import train_tokenizer
from tinyr1v_ray.miniature.warmup import WarmupSettings, warm_up

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "pillow", "scikit-learn", "vega_datasets")

OnProgress = Callable[[str, int, int], None]
"""Called with a stage's name, the units done in it and all its units."""


@dataclass(frozen=True)
class BuildSettings:
    """What to build. With `shipped_base` the package's base is copied and nothing is trained or measured."""

    output: Path
    warmup: WarmupSettings
    num_measured: int = 1000
    num_threads: int = 2
    shipped_base: bool = False


def build(settings: BuildSettings, on_progress: OnProgress) -> None:
    """Write everything under a temporary name and rename it to `settings.output` at the end.

    Raises RunFolderError when the output exists.
    """
    output = settings.output
    if output.exists():
        raise RunFolderError(f"output {output} exists; a build makes a new folder; remove it or name another")
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if settings.shipped_base:
            shutil.copytree(base_model_folder(), partial / "base")
        else:
            write_base(partial / "base", settings, on_progress)
        write_data(partial / "data", settings.warmup.seed, on_progress)
        write_contact_sheet(partial / "contact_sheet.png", settings.warmup.seed)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_data(folder: Path, seed: int, on_progress: OnProgress) -> None:
    """All nine parquet files."""
    files = [(domain, pool) for domain in Domain for pool in Pool]
    for number, (domain, pool) in enumerate(files, start=1):
        write_data_file(folder / domain / f"{pool}.parquet", domain, pool, seed)
        on_progress("data files", number, len(files))


def write_base(folder: Path, settings: BuildSettings, on_progress: OnProgress) -> None:
    """Train tokenizer and model, measure them, and save both with `miniature.json`."""
    torch.set_num_threads(settings.num_threads)
    started = time.monotonic()
    seed = settings.warmup.seed
    on_progress("tokenizer", 0, 1)
    processor = make_processor(train_tokenizer(seed))
    on_progress("tokenizer", 1, 1)
    model = make_model(processor.tokenizer, seed)
    losses: list[float] = []

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        on_progress(f"warm-up, loss {sum(losses[-50:]) / len(losses[-50:]):.3f}", step, settings.warmup.num_steps)

    warm_up(model, processor, settings.warmup, on_step)
    warmup_s = time.monotonic() - started
    scores = measured(model, processor, settings, on_progress)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    loss = sum(losses[-50:]) / len(losses[-50:])
    write_record(folder, settings, {"warmup_s": round(warmup_s), "final_loss": round(loss, 4)}, scores)


def write_record(
    folder: Path, settings: BuildSettings, outcome: dict[str, float], scores: dict[str, dict[str, object]]
) -> None:
    """Write `miniature.json`: how the base was made, and how it scores."""
    record = {
        "command": f"tinyr1v miniature build --output DIR --seed {settings.warmup.seed}",
        "seed": settings.warmup.seed,
        "warmup": asdict(settings.warmup),
        **outcome,
        "num_threads": settings.num_threads,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "evaluation": scores,
    }
    (folder / "miniature.json").write_text(json.dumps(record, indent=2) + "\n")


def measured(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    settings: BuildSettings,
    on_progress: OnProgress,
) -> dict[str, dict[str, object]]:
    """Scores of the model, with progress."""
    total, done = settings.num_measured * len(Domain) * len(MODES), 0

    def on_items(count: int) -> None:
        nonlocal done
        done += count
        on_progress("measuring", done, total)

    return measure(model, processor, settings.num_measured, settings.warmup.seed, on_items)
