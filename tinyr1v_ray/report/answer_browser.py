"""A sample of items with the answers of all models beside each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyr1v_ray.evaluation.benchmarks.stored import StoredAnswer, StoredItem
from tinyr1v_ray.report.evaluations import Answered
from tinyr1v_ray.report.outcomes import Model, Outcomes
from tinyr1v_ray.report.thumbnails import Thumbnail, stored_thumbnail

NUM_ITEMS = 24
"""Items of a benchmark: half of them those on which the models disagree most, the others evenly spaced."""
LONGEST_TEXT = 2000
_LONGEST_QUESTION = 600
_LONGEST_NOTE = 200


@dataclass(frozen=True)
class Speaker:
    """A model that gave an answer; `num_right` counts the seeds in which it is right."""

    name: str
    label: str
    num_right: int
    num_seeds: int


@dataclass(frozen=True)
class ShownAnswer:
    """One text and all models whose first sample of the seed shown it is."""

    text: str
    correct: bool
    extracted: str
    failure: str
    num_tokens: int
    speakers: tuple[Speaker, ...]


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
    def num_models(self) -> int:
        """Models that were asked."""
        return sum(len(answer.speakers) for answer in self.answers)

    @property
    def num_right(self) -> int:
        """Models that are right."""
        return sum(len(answer.speakers) for answer in self.answers if answer.correct)


def shown_items(outcomes: Outcomes, labels: Mapping[str, str]) -> list[ShownItem]:
    """The sample of every benchmark, the disputed items first; `labels` names the models for readers."""
    return [item for name in outcomes.benchmarks for item in _of_benchmark(name, outcomes.models, labels)]


def shown_seed(name: str, models: Sequence[Model]) -> int:
    """The seed that most models have answered, the lowest of these."""
    counts = Counter(seed for model in models if name in model.outcomes for seed in model.outcomes[name].seeds)
    return min(counts, key=lambda seed: (-counts[seed], seed))


def choose(verdicts: Sequence[Sequence[bool]], number: int) -> dict[int, bool]:
    """Places of the chosen items, and whether each was chosen for the models' disagreement; those come first.

    Half are those where the share of right models is nearest to one half (none where all agree), the rest are evenly
    spaced among the others.

    >>> choose([[True, True], [True, False], [False, False], [True, True]], 2)
    {1: True, 0: False}
    """
    shares = np.array([np.mean(row) for row in verdicts])
    order = np.argsort(np.abs(shares - 0.5), kind="stable")
    disputed = {int(place) for place in order[: number // 2] if 0 < shares[place] < 1}
    others = [place for place in range(len(verdicts)) if place not in disputed]
    wanted = min(number - len(disputed), len(others))
    spaced = [others[turn * len(others) // wanted] for turn in range(wanted)]
    return dict.fromkeys(sorted(disputed), True) | dict.fromkeys(spaced, False)


def _of_benchmark(name: str, models: Sequence[Model], labels: Mapping[str, str]) -> list[ShownItem]:
    seed = shown_seed(name, models)
    answered = [model for model in models if name in model.outcomes and seed in model.outcomes[name].seeds]
    firsts = [_first_samples(model.outcomes[name].by_seed[seed]) for model in answered]
    row = answered[0].outcomes[name].by_seed[seed]
    verdicts = [[item.item.index in first and first[item.item.index].correct for first in firsts] for item in row.items]
    shown = []
    for place, is_disputed in choose(verdicts, NUM_ITEMS).items():
        stored = row.items[place]
        said = [first.get(stored.item.index) for first in firsts]
        speakers = [_speaker(model, labels[model.name], name, stored.item.index) for model in answered]
        answers = _grouped(said, speakers)
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


def _speaker(model: Model, label: str, name: str, index: str) -> Speaker:
    outcome = model.outcomes[name]
    column = outcome.indexes.index(index) if index in outcome.indexes else None
    num_right = 0 if column is None else int(outcome.first_SN[:, column].sum())
    return Speaker(model.name, label, num_right, len(outcome.seeds))


def _grouped(said: Sequence[StoredAnswer | None], speakers: Sequence[Speaker]) -> list[ShownAnswer]:
    """Models that said the same together, in the order in which the texts first occur."""
    groups: dict[tuple[str, bool, str], list[int]] = defaultdict(list)
    for place, answer in enumerate(said):
        groups[("", False, "") if answer is None else (answer.text, answer.correct, answer.failure)].append(place)
    shown = []
    for places in groups.values():
        answer, who = said[places[0]], tuple(speakers[place] for place in places)
        if answer is None:
            shown.append(ShownAnswer("", False, "", "no answer is stored", 0, who))
            continue
        extracted, failure = shortened(answer.extracted, _LONGEST_NOTE), shortened(answer.failure, _LONGEST_NOTE)
        text = shortened(answer.text, LONGEST_TEXT)
        shown.append(ShownAnswer(text, answer.correct, extracted, failure, answer.num_tokens, who))
    return shown


def shortened(text: str, longest: int) -> str:
    """A text of at most `longest` characters, and how many there were.

    >>> shortened("abcdef", 4)
    'abcd … (6 characters)'
    """
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text)} characters)"
