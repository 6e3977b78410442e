"""Held-out answers of one model, as they are stored, and the metrics that follow from them alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tinyr1v_ray.evaluation.statistics import bootstrap_mean, paired_bootstrap, wilson_interval
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.telemetry.summary import Change, HeldOut, Interval
from tinyr1v_ray.types import ScoredGroup


@dataclass(frozen=True)
class HeldOutAnswer:
    """One answer to a held-out item; an answer that could not be scored has `failure` set and counts as wrong.

    >>> HeldOutAnswer("ocr-7", "ocr", "3", "407", "<answer>407</answer>", True, 1.0, 9, "").correct
    True
    """

    prompt_id: str
    domain: str
    difficulty: str
    reference: str
    text: str
    correct: bool
    reward: float
    num_tokens: int
    failure: str


def as_answer(group: ScoredGroup) -> HeldOutAnswer:
    """The first completion of a scored group."""
    prompt, completion, score = group.group.prompt, group.group.completions[0], group.scores[0]
    return HeldOutAnswer(
        prompt_id=prompt.prompt_id,
        domain=prompt.domain,
        difficulty=prompt.difficulty,
        reference=prompt.answer,
        text=completion.text,
        correct=score.correct,
        reward=score.total,
        num_tokens=completion.num_tokens,
        failure=score.failure,
    )


def write_answers(path: Path, answers: Sequence[HeldOutAnswer]) -> None:
    """One JSON object a line, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, "".join(json.dumps(asdict(answer), ensure_ascii=False) + "\n" for answer in answers))


def read_answers(path: Path) -> list[HeldOutAnswer]:
    """What `write_answers` wrote."""
    return [HeldOutAnswer(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def held_out_metrics(answers: Sequence[HeldOutAnswer]) -> list[HeldOut]:
    """By domain: accuracy (Wilson interval) and tokens per answer (bootstrap interval)."""
    return [
        HeldOut(
            domain,
            len(rows),
            wilson_interval(sum(row.correct for row in rows), len(rows)),
            bootstrap_mean([row.num_tokens for row in rows]),
        )
        for domain, rows in _by_domain(answers).items()
    ]


def held_out_row(answers: Sequence[HeldOutAnswer]) -> dict[str, float]:
    """Accuracy and tokens per answer over all items, as plain numbers."""
    return {
        "num_items": len(answers),
        "accuracy": float(np.mean([answer.correct for answer in answers])),
        "tokens": float(np.mean([answer.num_tokens for answer in answers])),
    }


def is_better(row: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
    """The rule of the best model: the highest accuracy; among equals the fewest tokens; among these the earliest.

    >>> is_better({"accuracy": 0.5, "tokens": 9.0}, {"accuracy": 0.5, "tokens": 9.5})
    True
    """
    if best is None:
        return True
    return (row["accuracy"], -row["tokens"]) > (best["accuracy"], -best["tokens"])


def held_out_changes(before: Sequence[HeldOutAnswer], after: Sequence[HeldOutAnswer]) -> list[Change]:
    """By domain: differences on the items that both answered, paired by id."""
    after_by_id = {row.prompt_id: row for row in after}
    shared = [row for row in before if row.prompt_id in after_by_id]
    return [Change(domain, *_paired(rows, after_by_id)) for domain, rows in _by_domain(shared).items()]


def _paired(before: Sequence[HeldOutAnswer], after_by_id: dict[str, HeldOutAnswer]) -> tuple[Interval, Interval]:
    pairs = [(row, after_by_id[row.prompt_id]) for row in before]
    correct = np.array([(then.correct, now.correct) for then, now in pairs], np.float64)
    tokens = np.array([(then.num_tokens, now.num_tokens) for then, now in pairs], np.float64)
    return paired_bootstrap(correct[:, 0], correct[:, 1]), paired_bootstrap(tokens[:, 0], tokens[:, 1])


def _by_domain(answers: Sequence[HeldOutAnswer]) -> dict[str, list[HeldOutAnswer]]:
    domains = sorted({answer.domain for answer in answers})
    return {domain: [answer for answer in answers if answer.domain == domain] for domain in domains}
