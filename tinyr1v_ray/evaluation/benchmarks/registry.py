"""The benchmarks by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Protocol

from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.evaluation.benchmarks.chartqa import CHARTQA
from tinyr1v_ray.evaluation.benchmarks.charxiv import CHARXIV
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark
from tinyr1v_ray.evaluation.benchmarks.mathverse import MATHVERSE
from tinyr1v_ray.evaluation.benchmarks.mathvision import MATHVISION
from tinyr1v_ray.evaluation.benchmarks.mathvista import MATHVISTA
from tinyr1v_ray.evaluation.benchmarks.metrics import METRICS
from tinyr1v_ray.evaluation.benchmarks.mme import MME
from tinyr1v_ray.evaluation.benchmarks.mmstar import MMSTAR
from tinyr1v_ray.evaluation.benchmarks.ocr_reasoning import OCR_REASONING
from tinyr1v_ray.evaluation.benchmarks.ocrbench import OCRBENCH
from tinyr1v_ray.evaluation.benchmarks.options import with_options
from tinyr1v_ray.evaluation.benchmarks.wemath import WEMATH
from tinyr1v_ray.rewards.score import ANSWER_TERMS

MINIATURE = "miniature:"
ALL_TEN = "ten"
"""Stands for all of TEN_BENCHMARKS."""
TEN_BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *(MATHVISTA, MATHVISION, MATHVERSE, WEMATH, CHARTQA),
        *(CHARXIV, OCRBENCH, OCR_REASONING, MME, MMSTAR),
    )
}
"""In the order of the paper's table."""


class UserBenchmark(Protocol):
    """A benchmark of the user, as `EvaluateConfig` describes it."""

    @property
    def file(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def images(self) -> bool: ...
    @property
    def question_column(self) -> str: ...
    @property
    def answer_column(self) -> str: ...
    @property
    def category_column(self) -> str: ...


def find_benchmarks(names: Iterable[str], of_the_user: Mapping[str, UserBenchmark]) -> list[Benchmark]:
    """The benchmarks of several names, `ten` among them, each once; raises ConfigError for an unknown one."""
    each = [one for name in names for one in (TEN_BENCHMARKS if name == ALL_TEN else (name,))]
    return [find_benchmark(name, of_the_user) for name in dict.fromkeys(each)]


def find_benchmark(name: str, of_the_user: Mapping[str, UserBenchmark]) -> Benchmark:
    """The benchmark of a name; raises ConfigError that suggests the nearest one, or names one that is there twice."""
    if clash := sorted(of_the_user.keys() & {ALL_TEN, *TEN_BENCHMARKS}):
        raise ConfigError(f"user.{clash[0]} has the name of a built-in; a name means one benchmark; rename yours")
    if name in of_the_user:
        return _user_benchmark(name, of_the_user[name])
    if name in TEN_BENCHMARKS:
        return TEN_BENCHMARKS[name]
    domain = name.removeprefix(MINIATURE)
    if name.startswith(MINIATURE) and domain in ANSWER_TERMS:
        metric = f"reward_{domain}"
        return Benchmark(name, (), lambda item: item.question, METRICS[metric], metric=metric)
    known = [*of_the_user, *TEN_BENCHMARKS, *(MINIATURE + domain for domain in ANSWER_TERMS)]
    folded = name.casefold().replace("-", "_")
    near = difflib.get_close_matches(folded, known, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else "name one of them, or describe yours under user"
    raise ConfigError(f"benchmark {name!r} is unknown; the known ones are {', '.join(known)}; {remedy}")


def _user_benchmark(name: str, described: UserBenchmark) -> Benchmark:
    if described.metric not in METRICS:
        near = difflib.get_close_matches(described.metric, list(METRICS), n=1)
        remedy = f"did you mean {near[0]}?" if near else "name one of them"
        raise ConfigError(f"user.{name}.metric is {described.metric!r}; the metrics are {', '.join(METRICS)}; {remedy}")
    return Benchmark(
        name,
        (described.file,),
        with_options,
        METRICS[described.metric],
        question_column=described.question_column,
        answer_column=described.answer_column,
        category_column=described.category_column,
        metric=described.metric,
        images=described.images,
    )
