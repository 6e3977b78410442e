"""From a completion to its reward: the domain's answer term, the format term, and their weights."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from tinyr1v_ray.config.custom_function import load_function
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.rewards.extract import extract_answer, extract_reading, read_reading
from tinyr1v_ray.rewards.format import format_score
from tinyr1v_ray.rewards.math_answer import math_equal
from tinyr1v_ray.rewards.ocr import text_similarity
from tinyr1v_ray.rewards.structured import structured_match
from tinyr1v_ray.types import Score

AnswerTerm = Callable[[str, str, float], float]
"""(the completion's text, reference, relative tolerance) -> [0, 1]."""


def _ocr_term(text: str, reference: str, relative_tolerance: float) -> float:
    return text_similarity(extract_reading(text), read_reading(reference))


def _math_term(text: str, reference: str, relative_tolerance: float) -> float:
    return float(math_equal(extract_answer(text), reference))


def _structure_term(text: str, reference: str, relative_tolerance: float) -> float:
    return float(structured_match(extract_answer(text), reference, relative_tolerance))


ANSWER_TERMS: Mapping[str, AnswerTerm] = MappingProxyType(
    {"math": _math_term, "structure": _structure_term, "ocr": _ocr_term}
)
"""The domains that have a reward of their own."""

UserFunction = Callable[[str, str, str, str], object]
"""(text, answer, question, domain) -> a number in [0, 1], or a mapping with `score` (and further parts, `correct`)."""


class ScoringRules(Protocol):
    """The part of `RewardSettings` that decides what an answer is worth."""

    @property
    def function(self) -> str: ...
    @property
    def format_weight(self) -> float: ...
    @property
    def format_weights(self) -> Mapping[str, float]: ...
    @property
    def relative_tolerance(self) -> float: ...


class AnswerScorer:
    """Scores one completion: total = (1 - w) * answer + w * format, with w the domain's format weight.

    The answer term is the domain's own, or the user's function; `correct` says whether it is 1 (for OCR: read exactly),
    unless the user's function says so itself.
    """

    def __init__(self, rules: ScoringRules) -> None:
        self._rules = rules
        self._user_function: UserFunction | None = (
            load_function("reward.function", rules.function) if rules.function else None
        )
        check_domains(rules, rules.format_weights)

    def __call__(self, text: str, answer: str | Sequence[str], question: str, domain: str) -> Score:
        """Score a completion's text; of several accepted answers, the one that it fits best counts.

        Whatever a user's function raises passes through.
        """
        accepted = [answer] if isinstance(answer, str) else answer
        scores = [self._score(text, each, question, domain) for each in accepted]
        return max(scores, key=lambda score: (score.correct, score.total))

    def _score(self, text: str, answer: str, question: str, domain: str) -> Score:
        if self._user_function is not None:
            value, parts, correct = read_user_score(self._user_function(text, answer, question, domain))
        else:
            check_domains(self._rules, [domain])
            value = ANSWER_TERMS[domain](text, answer, self._rules.relative_tolerance)
            parts, correct = {}, value == 1.0
        weight = self._rules.format_weights.get(domain, self._rules.format_weight)
        form = format_score(text)
        total = min(1.0, (1.0 - weight) * value + weight * form)
        return Score(total, {**parts, "answer": value, "format": form}, correct)


def build_scorer(rules: ScoringRules) -> AnswerScorer:
    """The scorer that `RewardSettings` describe; raises ConfigError for an unknown domain or a bad function."""
    return AnswerScorer(rules)


def check_domains(rules: ScoringRules, domains: Iterable[str]) -> None:
    """Raise ConfigError for a domain without a reward; a user's function takes any domain."""
    unknown = sorted(set(domains) - ANSWER_TERMS.keys())
    if not rules.function and unknown:
        near = difflib.get_close_matches(unknown[0], list(ANSWER_TERMS), n=1)
        remedy = f"did you mean {near[0]}?" if near else "rename the domain or set reward.function"
        raise ConfigError(
            f"domain {unknown[0]!r} has no reward; the known domains are {', '.join(sorted(ANSWER_TERMS))}; {remedy}"
        )


def read_user_score(returned: object) -> tuple[float, dict[str, float], bool]:
    """Value, further parts and verdict of what a user's function returned; raises ValueError for anything else."""
    mapping = returned if isinstance(returned, Mapping) else {"score": returned}
    if "score" not in mapping:
        raise ValueError(f"scoring function returned a mapping without 'score': {sorted(map(str, mapping))}")
    parts = {str(name): _as_number(name, part) for name, part in mapping.items() if name != "correct"}
    value = parts.pop("score")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"scoring function returned {value}; a score is in [0, 1]")
    correct = mapping.get("correct", value == 1.0)
    if type(correct).__name__ not in ("bool", "bool_"):
        raise ValueError(f"scoring function returned correct={correct!r}; it is True or False")
    return value, parts, bool(correct)


def _as_number(name: object, value: object) -> float:
    """A finite float, also from numpy's scalars."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise ValueError(f"scoring function returned {name}={value!r:.80}; it is a number")
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"scoring function returned {name}={number}; it is finite")
    return number
