"""A few groups of each training: the answers to one prompt with rewards, lengths and advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tinyr1v_ray.evaluation.reading import is_number, read_object, read_or_remark
from tinyr1v_ray.report.answer_browser import LONGEST_TEXT, shortened
from tinyr1v_ray.report.thumbnails import Thumbnail, file_thumbnail
from tinyr1v_ray.report.trainings import Training

SAMPLES = "samples"
NUM_STEPS = 3
"""Groups of a training: one of its first, its middle and its last step with samples."""


@dataclass(frozen=True)
class ShownCompletion:
    """One answer; `reward` is what was given, `advantage` what it was trained with."""

    text: str
    num_tokens: int
    reward: float
    advantage: float
    correct: bool
    note: str


@dataclass(frozen=True)
class ShownGroup:
    """A group of one training and step, its answers from the shortest to the longest."""

    model: str
    label: str
    seed: int
    step: int
    prompt_id: str
    question: str
    reference: str
    images: tuple[Thumbnail, ...]
    completions: tuple[ShownCompletion, ...]


def shown_groups(trainings: Sequence[Training], labels: Mapping[str, str]) -> tuple[list[ShownGroup], list[str]]:
    """Of every training of the lowest seed; of each step the first kept group whose advantages are not all zero.

    And what is left out.
    """
    first = min((training.entry.seed for training in trainings), default=0)
    shown: list[ShownGroup] = []
    remarks: list[str] = []
    for training in trainings:
        if training.entry.seed != first:
            continue
        for path in _spread(sorted((training.folder / SAMPLES).glob("step_*.json"))):
            what = f"{training.entry.name}, seed {training.entry.seed}: {SAMPLES}/{path.name}"
            group, said = read_or_remark(partial(_group, training, labels[training.entry.name], path), what)
            remarks += said
            shown += [group] if group is not None else []
    return shown, remarks


def _spread(paths: Sequence[Path]) -> list[Path]:
    """First, middle and last, each once."""
    if not paths:
        return []
    return [paths[place] for place in sorted({turn * (len(paths) - 1) // (NUM_STEPS - 1) for turn in range(NUM_STEPS)})]


def _group(training: Training, label: str, path: Path) -> ShownGroup:
    sample = read_object(path)
    groups = sample["groups"]
    with_signal = [group for group in groups if any(row["advantage"] for row in group["completions"])]
    return _shown(training, label, path.parent, int(sample["step"]), (with_signal or groups)[0])


def _shown(training: Training, label: str, folder: Path, step: int, group: Mapping[str, Any]) -> ShownGroup:
    images = (file_thumbnail(folder / name) for name in group["images"])
    completions = [
        ShownCompletion(
            shortened(row["text"], LONGEST_TEXT),
            int(row["num_tokens"]),
            _number(row["reward"]),
            _number(row["advantage"]),
            _verdict(row["correct"]),
            str(row["failure"] or ("cut off" if row["finish"] == "length" else "")),
        )
        for row in group["completions"]
    ]
    return ShownGroup(
        training.entry.name,
        label,
        training.entry.seed,
        step,
        str(group["prompt_id"]),
        shortened(group["question"], LONGEST_TEXT),
        str(group["answer"]),
        tuple(image for image in images if image is not None),
        tuple(sorted(completions, key=lambda row: row.num_tokens)),
    )


def _number(value: object) -> float:
    """Null is what a metric that is not finite was written as."""
    if value is not None and not is_number(value):
        raise ValueError("a metric is no number")
    return float(value or 0.0)  # type: ignore[arg-type]


def _verdict(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a verdict is neither true nor false")
    return value
