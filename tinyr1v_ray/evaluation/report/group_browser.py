"""A few groups of each training: the answers to one prompt with rewards, lengths and advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyr1v_ray.evaluation.report.answer_browser import LONGEST_TEXT, shortened
from tinyr1v_ray.evaluation.report.reading import UNREADABLE, is_number, read_object
from tinyr1v_ray.evaluation.report.thumbnails import Thumbnail, file_thumbnail
from tinyr1v_ray.evaluation.report.trainings import Training

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


def shown_groups(trainings: Sequence[Training], labels: Mapping[str, str]) -> list[ShownGroup]:
    """Of every training of the lowest seed; of each step the first kept group whose advantages are not all zero."""
    first = min((training.entry.seed for training in trainings), default=0)
    shown = []
    for training in trainings:
        if training.entry.seed != first:
            continue
        for path in _spread(sorted((training.folder / SAMPLES).glob("step_*.json"))):
            group = _group(training, labels.get(training.entry.name, training.entry.name), path)
            shown += [group] if group is not None else []
    return shown


def _spread(paths: Sequence[Path]) -> list[Path]:
    """First, middle and last, each once."""
    if not paths:
        return []
    return [paths[place] for place in sorted({turn * (len(paths) - 1) // (NUM_STEPS - 1) for turn in range(NUM_STEPS)})]


def _group(training: Training, label: str, path: Path) -> ShownGroup | None:
    try:
        sample = read_object(path)
        groups = sample["groups"]
        with_signal = [group for group in groups if any(row["advantage"] for row in group["completions"])]
        return _shown(training, label, path.parent, int(sample["step"]), (with_signal or groups)[0])
    except UNREADABLE:
        return None


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
    """Null is what a figure that is not finite was written as."""
    if value is not None and not is_number(value):
        raise ValueError("a figure is no number")
    return float(value or 0.0)  # type: ignore[arg-type]


def _verdict(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a verdict is neither true nor false")
    return value
