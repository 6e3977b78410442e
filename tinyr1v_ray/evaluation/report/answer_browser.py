"""A sample of items with the answers of all models beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyr1v_ray.evaluation.benchmarks.stored import StoredAnswer, StoredItem
from tinyr1v_ray.evaluation.report.outcomes import Answered, Model, Outcomes
from tinyr1v_ray.evaluation.report.thumbnails import Thumbnail, stored_thumbnail

NUM_ITEMS = 24
"""Items of a benchmark: half of them those on which the models disagree most, the others evenly spaced."""
LONGEST_TEXT = 2000
_LONGEST_QUESTION = 600


@dataclass(frozen=True)
class ShownAnswer:
    """One model's first sample of the seed that is shown; `num_right` is over all its seeds."""

    model: str
    label: str
    text: str
    correct: bool
    extracted: str
    failure: str
    num_tokens: int
    num_right: int
    num_seeds: int


@dataclass(frozen=True)
class ShownItem:
    """An item; `is_disputed` says why it was chosen."""

    benchmark: str
    index: str
    category: str
    question: str
    reference: str
    failure: str
    images: tuple[Thumbnail, ...]
    num_lost_images: int
    is_disputed: bool
    answers: tuple[ShownAnswer, ...]

    @property
    def num_right(self) -> int:
        """Models that are right."""
        return sum(answer.correct for answer in self.answers)


def shown_items(outcomes: Outcomes, labels: Mapping[str, str]) -> list[ShownItem]:
    """The sample of every benchmark, in the items' order; `labels` names the models for readers."""
    return [item for name in outcomes.benchmarks for item in _of_benchmark(name, outcomes.models, labels)]


def shown_seed(name: str, models: Sequence[Model]) -> int:
    """The seed that most models have answered, the lowest of these."""
    counts = Counter(seed for model in models if name in model.outcomes for seed in model.outcomes[name].seeds)
    return min(counts, key=lambda seed: (-counts[seed], seed))


def choose(verdicts: Sequence[Sequence[bool]], number: int) -> dict[int, bool]:
    """Places of the chosen items in order, and whether each was chosen for the models' disagreement.

    Half are those where the share of right models is nearest to one half (none where all agree), the rest are evenly
    spaced among the others.

    >>> choose([[True, True], [True, False], [False, False], [True, True]], 2)
    {0: False, 1: True}
    """
    shares = np.array([np.mean(row) for row in verdicts])
    order = np.argsort(np.abs(shares - 0.5), kind="stable")
    disputed = {int(place) for place in order[: number // 2] if 0 < shares[place] < 1}
    others = [place for place in range(len(verdicts)) if place not in disputed]
    wanted = min(number - len(disputed), len(others))
    spaced = [others[turn * len(others) // wanted] for turn in range(wanted)]
    return {place: place in disputed for place in sorted([*disputed, *spaced])}


def _of_benchmark(name: str, models: Sequence[Model], labels: Mapping[str, str]) -> list[ShownItem]:
    seed = shown_seed(name, models)
    answered = [model for model in models if name in model.outcomes and seed in model.outcomes[name].seeds]
    firsts = [_first_samples(model.outcomes[name].by_seed[seed]) for model in answered]
    row = answered[0].outcomes[name].by_seed[seed]
    verdicts = [[item.item.index in first and first[item.item.index].correct for first in firsts] for item in row.items]
    shown = []
    for place, is_disputed in choose(verdicts, NUM_ITEMS).items():
        stored = row.items[place]
        pairs = zip(answered, firsts, strict=True)
        answers = [
            _answer(model, labels[model.name], first.get(stored.item.index), name, stored.item.index)
            for model, first in pairs
        ]
        shown.append(_item(name, stored, row.images, is_disputed, answers))
    return shown


def _first_samples(row: Answered) -> dict[str, StoredAnswer]:
    return {answer.prompt_id: answer for answer in row.answers if answer.sample == 0}


def _item(name: str, stored: StoredItem, folder: Path, is_disputed: bool, answers: Sequence[ShownAnswer]) -> ShownItem:
    item = stored.item
    images = [stored_thumbnail(facts, folder) for facts in item.images]
    return ShownItem(
        name,
        item.index,
        item.category,
        shortened(stored.asked, _LONGEST_QUESTION),
        item.answer,
        item.failure,
        tuple(image for image in images if image is not None),
        sum(image is None for image in images),
        is_disputed,
        tuple(answers),
    )


def _answer(model: Model, label: str, answer: StoredAnswer | None, name: str, index: str) -> ShownAnswer:
    outcome = model.outcomes[name]
    column = outcome.indexes.index(index) if index in outcome.indexes else None
    num_right = 0 if column is None else int(outcome.first_SN[:, column].sum())
    if answer is None:
        return ShownAnswer(model.name, label, "", False, "", "no answer is stored", 0, num_right, len(outcome.seeds))
    return ShownAnswer(
        model.name,
        label,
        shortened(answer.text, LONGEST_TEXT),
        answer.correct,
        shortened(answer.extracted, 200),
        shortened(answer.failure, 200),
        answer.num_tokens,
        num_right,
        len(outcome.seeds),
    )


def shortened(text: str, longest: int) -> str:
    """A text of at most `longest` characters, and how many there were.

    >>> shortened("abcdef", 4)
    'abcd … (6 characters)'
    """
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text)} characters)"
