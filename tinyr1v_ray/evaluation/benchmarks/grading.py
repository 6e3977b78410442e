"""Grades stored answers: the rules in a child process under a hard deadline, then the judge where they are not sure.

Model output is hostile input to parsers of mathematics, so rules run where a hang costs one item (see
`rewards.isolation`). `score_in_child` is what runs there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

from tinyr1v_ray.config.reward import RewardSettings
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.judge import JudgeClient, JudgeReply, judge_request, read_verdict
from tinyr1v_ray.evaluation.benchmarks.metrics import METRICS
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS
from tinyr1v_ray.evaluation.benchmarks.stored import StoredAnswer, StoredItem
from tinyr1v_ray.rewards.extract import after_reasoning, extract_answer
from tinyr1v_ray.rewards.isolation import ScoringProcess
from tinyr1v_ray.types import Score

_ANSWERS_AT_ONCE = 50
_MAX_SENT_CHARACTERS = 10_000
_GRADERS = {name: benchmark.grade for name, benchmark in TEN_BENCHMARKS.items()} | METRICS
_SURE = "is_sure"

_Row = tuple[StoredItem, StoredAnswer]


def score_in_child(text: str, answer: str, question: str, domain: str) -> Mapping[str, float | bool]:
    """Grade `text` for the item in `answer` (JSON) by the rule named `question`; called in the scoring process."""
    grade = _GRADERS[question](BenchmarkItem(**json.loads(answer)), text)
    return {"score": grade.score, "correct": grade.correct, _SURE: float(grade.is_sure)}


class Grader:
    """Grades the answers of one benchmark after another. Use as a context manager: it owns a process.

    `num_parallel` questions are asked of a judge at once; rules may take `item_timeout_s` for an answer.
    """

    def __init__(self, num_parallel: int = 8, item_timeout_s: float = 10.0) -> None:
        self._threads = ThreadPoolExecutor(num_parallel)
        function = f"{__name__}:{score_in_child.__name__}"
        self._process = ScoringProcess(
            RewardSettings(function=function, format_weight=0.0, item_timeout_s=item_timeout_s)
        )

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._process.close()

    def grade(
        self,
        benchmark: Benchmark,
        items: Sequence[StoredItem],
        answers: Sequence[StoredAnswer],
        judge: JudgeClient | None = None,
        on_done: Callable[[int], None] = lambda num_done: None,
    ) -> list[StoredAnswer]:
        """The answers with their grades, in the order given.

        A judge is asked only where the rules are not sure and no reply of a judge is stored yet; without a judge the
        stored replies count.
        """
        by_index = {stored.item.index: stored for stored in items}
        graded: list[StoredAnswer] = []
        for start in range(0, len(answers), _ANSWERS_AT_ONCE):
            chunk = answers[start : start + _ANSWERS_AT_ONCE]
            graded += self._grade_chunk(benchmark, [(by_index[answer.prompt_id], answer) for answer in chunk], judge)
            on_done(len(chunk))
        return graded

    def _grade_chunk(self, benchmark: Benchmark, rows: Sequence[_Row], judge: JudgeClient | None) -> list[StoredAnswer]:
        scores = self._rules(benchmark, [(stored.item, answer.text) for stored, answer in rows])
        graded = [_graded(*row, score) for row, score in zip(rows, scores, strict=True)]
        unsure = [n for n, score in enumerate(scores) if not score.failure and not score.parts[_SURE]]
        if benchmark.judge == "none":
            return graded
        replies = self._threads.map(lambda n: _reply(benchmark, *rows[n], judge), unsure)
        for n, reply in zip(unsure, replies, strict=True):
            if reply is not None:
                graded[n] = self._judged(benchmark, rows[n][0].item, graded[n], reply)
        return graded

    def _rules(self, benchmark: Benchmark, requests: Sequence[tuple[BenchmarkItem, str]]) -> list[Score]:
        """Scores by the rules. Answers to items that cannot be scored, or without a conclusion, are surely wrong."""
        sent = [n for n, (item, text) in enumerate(requests) if after_reasoning(text).strip() and not item.failure]
        messages = [[requests[n][1], _as_json(requests[n][0]), benchmark.grader, ""] for n in sent]
        scores = [Score(0.0, {_SURE: 1.0}) for _ in requests]
        for n, score in zip(sent, self._process.score_items(messages), strict=True):
            scores[n] = score
        return scores

    def _judged(
        self, benchmark: Benchmark, item: BenchmarkItem, answer: StoredAnswer, reply: JudgeReply
    ) -> StoredAnswer:
        """The answer with the judge's word in it; an unreadable word is a failure and leaves the answer wrong."""
        if reply.failure:
            return replace(answer, judge_failure=reply.failure)
        if benchmark.judge == "extract":
            [score] = self._rules(benchmark, [(item, reply.text)])
            extracted, correct = reply.text.strip()[:200], score.correct and not score.failure
            return replace(answer, extracted=extracted, judge_reply=reply.text, reward=float(correct), correct=correct)
        verdict = read_verdict(reply.text)
        if verdict is None:
            return replace(answer, judge_failure=f"unreadable verdict: {reply.text.strip()[:100]!r}")
        return replace(answer, judge_reply=reply.text, reward=float(verdict), correct=verdict)


def _reply(
    benchmark: Benchmark, stored: StoredItem, answer: StoredAnswer, judge: JudgeClient | None
) -> JudgeReply | None:
    if answer.judge_reply:
        return JudgeReply(answer.judge_reply)
    if judge is not None:
        return judge.ask(judge_request(benchmark.judge, stored.item, stored.asked, answer.text))
    return JudgeReply(failure=answer.judge_failure) if answer.judge_failure else None


def _graded(stored: StoredItem, answer: StoredAnswer, score: Score) -> StoredAnswer:
    failure = stored.item.failure or score.failure
    return replace(
        answer,
        difficulty=stored.item.category,
        reference=stored.item.answer,
        failure=failure,
        extracted=extract_answer(answer.text),
        reward=0.0 if failure else score.total,
        correct=score.correct and not failure,
        judge_reply="",
        judge_failure="",
    )


def _as_json(item: BenchmarkItem) -> str:
    """What the rules need of an item: no images, and no long cells such as a judge's query."""
    columns = {name: text for name, text in item.columns.items() if len(text) <= _MAX_SENT_CHARACTERS}
    return json.dumps(asdict(replace(item, columns=columns, images=())))
