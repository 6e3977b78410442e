"""What the models answered: for each model and benchmark a table of seeds by items, from stored answers alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinyr1v_ray.evaluation.benchmarks.stored import SCORES, StoredAnswer
from tinyr1v_ray.evaluation.reading import UNREADABLE, reason
from tinyr1v_ray.report.evaluations import Answered, read_evaluation
from tinyr1v_ray.report.recipe import Entry, Recipe, Role


@dataclass(frozen=True)
class Outcome:
    """One model on one benchmark. Columns are items in the order of `indexes`, rows are `seeds`.

    `correct_SN` is the mean over samples, `first_SN` the first sample's verdict, `tokens_SN` the mean tokens of an
    answer and NaN where the item was not asked. `groups` says of each item what it belongs to.
    """

    seeds: tuple[int, ...]
    indexes: tuple[str, ...]
    categories: tuple[str, ...]
    groups: tuple[str, ...]
    correct_SN: np.ndarray
    first_SN: np.ndarray
    tokens_SN: np.ndarray
    by_seed: Mapping[int, Answered]

    @property
    def score(self) -> float:
        """Mean over seeds of the official score on 0-100."""
        return float(np.mean([self.by_seed[seed].score for seed in self.seeds]))

    @property
    def is_grouped(self) -> bool:
        """Whether some of the items belong together."""
        return len(set(self.groups)) < len(self.groups)

    @property
    def accuracy(self) -> float:
        """Mean over seeds and items, in [0, 1]."""
        return float(self.correct_SN.mean())

    @property
    def tokens(self) -> float:
        """Mean tokens of an answer over seeds and the items that were asked; NaN when none was."""
        asked = self.tokens_SN[np.isfinite(self.tokens_SN)]
        return float(asked.mean()) if asked.size else float("nan")

    @property
    def tokens_per_right(self) -> float:
        """What a right answer costs: all tokens over the number of right answers; NaN without any."""
        num_right = float(self.correct_SN.sum())
        return float(np.nansum(self.tokens_SN)) / num_right if num_right else float("nan")


@dataclass(frozen=True)
class Model:
    """The entries of one name over the seeds, and what they answered."""

    name: str
    role: Role
    algorithm: str
    domains: tuple[str, ...]
    boost: float | None
    entries: tuple[Entry, ...]
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that have answered something."""
        return tuple(sorted({seed for outcome in self.outcomes.values() for seed in outcome.seeds}))

    @property
    def home(self) -> str:
        """The one domain that the model is judged on; empty for those for all domains."""
        return self.entries[0].home

    @property
    def kind(self) -> str:
        """`base`, `mixture` (trained on several domains at once), or the method of a merge; empty for all others."""
        if self.role == "merged":
            return self.algorithm
        is_mixture = self.role == "baseline" and self.is_for_all and not self.entries[0].start_from
        return "mixture" if is_mixture else "base" if self.role == "base" else ""

    @property
    def is_for_all(self) -> bool:
        """Whether it is meant for all domains: the base, a merge, a training on several at once or in turn."""
        return not self.home


@dataclass(frozen=True)
class Outcomes:
    """All models in the recipe's order, the benchmarks that any has answered, and what was left out and why.

    `scored_otherwise` are benchmarks whose official score is not the share of right items: pairs, strict cases.
    """

    models: tuple[Model, ...]
    benchmarks: tuple[str, ...]
    remarks: tuple[str, ...]
    scored_otherwise: tuple[str, ...]

    @property
    def grouped(self) -> tuple[str, ...]:
        """Benchmarks some of whose items belong together."""
        found = {name for model in self.models for name, outcome in model.outcomes.items() if outcome.is_grouped}
        return tuple(name for name in self.benchmarks if name in found)

    def of_paper(self, kind: str) -> Model | None:
        """The model that the paper calls by this kind, if it has answered anything.

        Of several of the kind it is the one whose name is the kind's, else none of them: which is meant is not known.
        """
        found = [model for model in self.models if model.kind == kind]
        if len(found) > 1:
            found = [model for model in found if model.name == kind]
        return found[0] if found and found[0].outcomes else None


def read_outcomes(recipe: Recipe) -> Outcomes:
    """Read every finished evaluation. One that is missing or broken is a remark, not an error."""
    by_name: dict[str, list[Entry]] = defaultdict(list)
    for entry in recipe.entries:
        by_name[entry.name].append(entry)
    remarks: list[str] = []
    waiting = {name: [entry.seed for entry in rows if not _is_graded(entry)] for name, rows in by_name.items()}
    models = [_model(entries, remarks) for entries in by_name.values()]
    remarks += _not_evaluated(waiting, by_name)
    benchmarks = dict.fromkeys(name for model in models for name in model.outcomes)
    return Outcomes(tuple(models), tuple(benchmarks), tuple(remarks), _scored_otherwise(models, benchmarks))


def _scored_otherwise(models: Sequence[Model], benchmarks: Iterable[str]) -> tuple[str, ...]:
    found = {
        name
        for model in models
        for name, outcome in model.outcomes.items()
        if not all(answered.is_plain for answered in outcome.by_seed.values())
    }
    return tuple(name for name in benchmarks if name in found)


def _model(entries: Sequence[Entry], remarks: list[str]) -> Model:
    answered: dict[str, dict[int, Answered]] = defaultdict(dict)
    for entry in entries:
        if entry.evaluation is None or not _is_graded(entry):
            continue
        who = f"{entry.name}, seed {entry.seed}"
        try:
            found, left_out = read_evaluation(entry.evaluation)
        except UNREADABLE as error:
            remarks.append(f"{who}: left out, its evaluation cannot be read ({reason(error)})")
            continue
        remarks += [f"{who}: {said}" for said in left_out]
        for name, row in found.items():
            answered[name][entry.seed] = row
    first = entries[0]
    outcomes = {name: outcome_of(rows) for name, rows in answered.items()}
    return Model(first.name, first.role, first.algorithm, first.domains, first.boost, tuple(entries), outcomes)


def _is_graded(entry: Entry) -> bool:
    try:
        return entry.evaluation is not None and (entry.evaluation / SCORES).is_file()
    except (OSError, ValueError):
        return False


def _not_evaluated(waiting: Mapping[str, Sequence[int]], by_name: Mapping[str, Sequence[Entry]]) -> list[str]:
    """One remark about all models whose evaluations are not there; those that lack the same seeds stand together."""
    alike: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, seeds in waiting.items():
        if seeds:
            alike[() if len(seeds) == len(by_name[name]) else tuple(sorted(seeds))].append(name)
    said = [
        ", ".join(names) + (f" (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})" if seeds else "")
        for seeds, names in alike.items()
    ]
    return [f"Not evaluated yet: {'; '.join(said)}."] if said else []


def outcome_of(by_seed: Mapping[int, Answered]) -> Outcome:
    """Tables over the items that every seed was asked; what could not be asked counts as wrong and has no tokens."""
    seeds = tuple(sorted(by_seed))
    shared = set.intersection(*({row.item.index for row in by_seed[seed].items} for seed in seeds))
    first = by_seed[seeds[0]]
    kept = [(row.item, group) for row, group in zip(first.items, first.groups, strict=True) if row.item.index in shared]
    places = {item.index: place for place, (item, _) in enumerate(kept)}
    tables = [_tables(by_seed[seed].answers, places) for seed in seeds]
    return Outcome(
        seeds,
        tuple(places),
        tuple(item.category for item, _ in kept),
        tuple(group for _, group in kept),
        np.stack([table[0] for table in tables]),
        np.stack([table[1] for table in tables]),
        np.stack([table[2] for table in tables]),
        by_seed,
    )


def _tables(answers: Sequence[StoredAnswer], places: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one seed: mean correctness, the first sample's verdict, mean tokens; each [N]."""
    num_samples = 1 + max(answer.sample for answer in answers)
    correct_N, first_N = np.zeros(len(places)), np.zeros(len(places), bool)
    tokens_N, num_asked_N = np.zeros(len(places)), np.zeros(len(places))
    for answer in answers:
        if answer.prompt_id not in places:
            continue
        place = places[answer.prompt_id]
        correct_N[place] += answer.correct / num_samples
        first_N[place] |= answer.sample == 0 and answer.correct
        if answer.finished_s:
            tokens_N[place] += answer.num_tokens
            num_asked_N[place] += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return correct_N, first_N, tokens_N / num_asked_N


def paired(
    first: Model, second: Model, benchmarks: Sequence[str]
) -> tuple[tuple[int, ...], list[tuple[Outcome, Outcome]]]:
    """The seeds that both answered on all `benchmarks`, and their outcomes cut to these seeds and to shared items.

    Empty when there is no such seed or a benchmark of which they share no item.
    """
    pairs = [(first.outcomes[name], second.outcomes[name]) for name in benchmarks]
    seeds = set.intersection(*(set(outcome.seeds) for pair in pairs for outcome in pair)) if pairs else set()
    cut = []
    for one, other in pairs:
        of_other = set(other.indexes)
        shared = [index for index in one.indexes if index in of_other]
        if not seeds or not shared:
            return (), []
        cut.append((_cut(one, seeds, shared), _cut(other, seeds, shared)))
    return tuple(sorted(seeds)), cut


def _cut(outcome: Outcome, seeds: set[int], indexes: Sequence[str]) -> Outcome:
    rows = [place for place, seed in enumerate(outcome.seeds) if seed in seeds]
    places = {index: place for place, index in enumerate(outcome.indexes)}
    columns = [places[index] for index in indexes]
    grid = np.ix_(rows, columns)
    return Outcome(
        tuple(outcome.seeds[row] for row in rows),
        tuple(indexes),
        tuple(outcome.categories[column] for column in columns),
        tuple(outcome.groups[column] for column in columns),
        outcome.correct_SN[grid],
        outcome.first_SN[grid],
        outcome.tokens_SN[grid],
        outcome.by_seed,
    )
