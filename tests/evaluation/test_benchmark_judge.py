"""A judge behind a real HTTP server: asked only where rules are unsure, and its failures are never right answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tinyr1v_ray.config.benchmark import JudgeSettings
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.evaluation.benchmarks.grading import Grader
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.judge import JudgeClient
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS
from tinyr1v_ray.evaluation.benchmarks.scores import benchmark_scores
from tinyr1v_ray.evaluation.benchmarks.stored import StoredAnswer, StoredItem

pytestmark = pytest.mark.slow

INTEGER = {"question_type": "free_form", "answer_type": "integer", "choices": "[]"}
QUERY = {"inst_category": "1", "grading_query": "Grade this: {PREDICTION}"}


class Server:
    """An OpenAI-compatible endpoint whose replies a test sets."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/chat/completions"
                server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                server.keys.append(self.headers["Authorization"])
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
                status = reply if isinstance(reply, int) else 200
                content = (
                    reply
                    if isinstance(reply, bytes)
                    else json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
                )
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def asked(self, number: int = 0) -> str:
        return self.requests[number]["messages"][0]["content"]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyr1v_ray.evaluation.benchmarks.judge.time.sleep", lambda seconds: None)


def judge(server: Server) -> JudgeClient:
    return JudgeClient(JudgeSettings(url=server.url, model="referee", api_key_variable="TINYR1V_TEST_KEY", timeout_s=5))


Grade = Callable[[str, str, str, dict[str, str]], StoredAnswer]


@pytest.fixture
def grade(grader: Grader, server: Server) -> Grade:
    """Grades one answer with the judge: (benchmark, key, text, columns) -> stored answer."""

    def run(name: str, answer: str, text: str, columns: dict[str, str]) -> StoredAnswer:
        item = StoredItem(BenchmarkItem("1", "How many?", answer, columns=columns), "How many?")
        raw = StoredAnswer(name, "1", 0, text, 9, "stop", 1.0, 2.0)
        [graded] = grader.grade(TEN_BENCHMARKS[name], [item], [raw], judge(server))
        return graded

    return run


def test_extraction_is_asked_for_and_then_graded_by_the_rules(
    server: Server, monkeypatch: pytest.MonkeyPatch, grade: Grade
) -> None:
    monkeypatch.setenv("TINYR1V_TEST_KEY", "secret")
    server.replies = ["14"]
    graded = grade("mathvista", "14", "<think>long</think>I count 13 and one more, so 14.", INTEGER)
    assert graded.correct and graded.judge_reply == "14" and not graded.judge_failure
    assert server.requests[0]["model"] == "referee" and server.requests[0]["temperature"] == 0
    assert server.keys == ["Bearer secret"]
    assert (
        "I count 13 and one more" in server.asked() and "long" not in server.asked() and "How many?" in server.asked()
    )


def test_a_wrong_or_empty_extraction_is_wrong(server: Server, grade: Grade) -> None:
    for reply in ("13", "NONE", "13 or 14"):
        server.replies = [reply]
        graded = grade("mathvista", "14", "I count 13 and one more.", INTEGER)
        assert not graded.correct and graded.judge_reply == reply and graded.reward == 0.0


@pytest.mark.parametrize("text", ["14", "13", "", "<think>hm", "  "])
def test_sure_and_empty_answers_ask_nobody(server: Server, text: str, grade: Grade) -> None:
    assert grade("mathvista", "14", text, INTEGER).correct is (text == "14")
    assert server.requests == []


@pytest.mark.parametrize(("reply", "correct"), [("1", True), ("0", False)])
def test_mathverse_is_compared_with_its_key(server: Server, reply: str, correct: bool, grade: Grade) -> None:
    server.replies = [reply]
    graded = grade("mathverse", "0.5 m", "It is half a metre long", {"question_type": "free-form"})
    assert graded.correct is correct and "0.5 m" in server.asked()


def test_charxiv_uses_the_items_own_query(server: Server, grade: Grade) -> None:
    server.replies = ['```json\n{"extract_answer": "A", "score": 1}\n```']
    graded = grade("charxiv", "Model A", "The model called A", QUERY)
    assert graded.correct and server.asked() == "Grade this: The model called A"


@pytest.mark.parametrize(
    ("replies", "failure"),
    [
        ([500], "HTTP status 500"),
        ([401], "HTTP status 401"),
        ([b"not json"], "no chat completion"),
        ([b'{"choices": []}'], "no chat completion"),
        ([""], "empty reply"),
        (["It is right."], "unreadable verdict"),
        (['{"score": "high"}'], "unreadable verdict"),
        (["[[1]]"], "unreadable verdict"),
    ],
)
def test_a_judge_that_fails_is_counted_and_never_right(
    server: Server, replies: list[Any], failure: str, grade: Grade
) -> None:
    server.replies = replies
    graded = grade("charxiv", "Model A", "The model called A", QUERY)
    assert failure in graded.judge_failure and not graded.correct and graded.reward == 0.0
    item = StoredItem(BenchmarkItem("1", "?", "Model A", columns=QUERY), "?")
    scores = benchmark_scores(TEN_BENCHMARKS["charxiv"], [item], [graded])
    assert (scores.score, scores.counts.judge_failed, scores.counts.judged) == (0.0, 1, 0)
    assert any(failure in reason for reason in scores.counts.by_reason)


def test_a_passing_trouble_is_tried_again_and_a_refusal_is_not(server: Server, grade: Grade) -> None:
    server.replies = [503, 429, "1"]
    assert grade("mathverse", "x", "It is y", {"question_type": "free-form"}).correct
    assert len(server.requests) == 3
    server.replies = [401, "1"]
    assert not grade("mathverse", "x", "It is y", {"question_type": "free-form"}).correct
    assert len(server.requests) == 4


def test_a_judge_that_is_not_there(server: Server, grade: Grade) -> None:
    server.close()
    graded = grade("mathverse", "x", "It is y", {"question_type": "free-form"})
    assert "no answer" in graded.judge_failure and not graded.correct


def test_a_stored_reply_counts_again_without_a_judge(server: Server, grader: Grader) -> None:
    server.replies = ["14"]
    item = StoredItem(BenchmarkItem("1", "How many?", "14", columns=INTEGER), "How many?")
    raw = StoredAnswer("mathvista", "1", 0, "I count 13 and one more.", 9, "stop", 1.0, 2.0)
    first = grader.grade(TEN_BENCHMARKS["mathvista"], [item], [raw], judge(server))
    assert grader.grade(TEN_BENCHMARKS["mathvista"], [item], first) == first
    assert first[0].correct and len(server.requests) == 1


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"judge\.url"):
        JudgeClient(JudgeSettings(url="file:///etc/passwd", model="m"))


def test_items_without_a_key_are_never_right(server: Server, grader: Grader) -> None:
    server.replies = ["1"]
    item = StoredItem(BenchmarkItem("1", "?", "", columns=QUERY, failure="answer key is empty"), "?")
    raw = StoredAnswer("charxiv", "1", 0, "anything", 3, "stop", 1.0, 2.0)
    [graded] = grader.grade(TEN_BENCHMARKS["charxiv"], [item], [raw], judge(server))
    assert not graded.correct and graded.failure == "answer key is empty" and server.requests == []
