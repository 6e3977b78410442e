"""An LLM judge behind an OpenAI-compatible endpoint, for benchmarks whose official metric needs one. Optional.

A judge that does not answer, or answers something unreadable, is a failure that is counted; it never makes an answer
right. The texts of the requests are this package's own, so scores may differ from those of the official judges.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Protocol

from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.rewards.extract import after_reasoning

_MAX_ANSWER_CHARACTERS = 8000
_NUM_TRIES = 3
_RETRIED_STATUS = (408, 429, 500, 502, 503, 504)

_EXTRACT = """Below are a question and a response to it. Write down only the final answer that the response gives: \
the option's letter if the question has options, else the number, list or text, without unit or explanation. If the \
response gives no final answer, write NONE. Do not solve the question yourself.

Question:
{question}

Response:
{answer}

Final answer:"""

_COMPARE = """Below are a question, its correct answer and a response. Does the response give that answer? Other \
notation and equal units count as the same; a different option, value or interval does not. Reply with 1 if it does \
and with 0 if it does not, and with nothing else.

Question:
{question}

Correct answer:
{key}

Response:
{answer}

1 or 0:"""


class JudgeRules(Protocol):
    """The part of `JudgeSettings` that reaches the endpoint."""

    @property
    def url(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def api_key_variable(self) -> str: ...
    @property
    def timeout_s(self) -> float: ...


@dataclass(frozen=True)
class JudgeReply:
    """What the judge wrote, or why there is nothing."""

    text: str = ""
    failure: str = ""


class JudgeClient:
    """Asks one question at a time; may be used from several threads.

    The key comes from the environment variable that the settings name, and is neither stored nor shown.
    """

    def __init__(self, rules: JudgeRules) -> None:
        self._rules = rules
        if not rules.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"judge.url is {rules.url!r}; it is the http(s) address of an OpenAI-compatible API, such as "
                "http://host:8000/v1; correct it"
            )
        self._address = rules.url.rstrip("/") + "/chat/completions"

    def ask(self, request: str) -> JudgeReply:
        """The reply to a request, after up to three tries; failures come back as such."""
        body = {
            "model": self._rules.model,
            "messages": [{"role": "user", "content": request}],
            "temperature": 0,
            "max_tokens": 512,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self._rules.api_key_variable, ""):
            headers["Authorization"] = f"Bearer {key}"
        post = urllib.request.Request(self._address, json.dumps(body).encode(), headers)
        reply = JudgeReply()
        for attempt in range(_NUM_TRIES):
            time.sleep(attempt)
            reply, is_final = self._post(post)
            if is_final:
                break
        return reply

    def _post(self, post: urllib.request.Request) -> tuple[JudgeReply, bool]:
        try:
            with urllib.request.urlopen(post, timeout=self._rules.timeout_s) as response:
                content = json.load(response)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            return JudgeReply(failure=f"HTTP status {error.code}"), error.code not in _RETRIED_STATUS
        except OSError as error:
            return JudgeReply(failure=f"no answer: {error}"[:200]), False
        except (ValueError, LookupError, TypeError) as error:
            return JudgeReply(failure=f"reply is no chat completion: {error!r}"[:200]), True
        if not isinstance(content, str) or not content.strip():
            return JudgeReply(failure="empty reply"), True
        return JudgeReply(content), True


def judge_request(use: str, item: BenchmarkItem, asked: str, text: str) -> str:
    """What to ask the judge about an answer; `asked` is the question as the model was asked it."""
    answer = after_reasoning(text).strip()[-_MAX_ANSWER_CHARACTERS:]
    if use == "grading_query" and (query := item.columns.get("grading_query", "")):
        return query.replace("{PREDICTION}", answer)
    template = _EXTRACT if use == "extract" else _COMPARE
    question = item.columns.get("question_for_eval") or asked
    return template.format(question=question, key=item.answer, answer=answer)


def read_verdict(reply: str) -> bool | None:
    """A comparison's verdict: 1 or 0, alone or as `score` of a JSON object; None when there is neither.

    >>> read_verdict(" 1 "), read_verdict('{"extract_answer": "4", "score": 0}'), read_verdict("It is right.")
    (True, False, None)
    """
    found = re.search(r"\{.*\}", reply, re.DOTALL)
    if found:
        try:
            value: Any = json.loads(found[0]).get("score")
        except ValueError:
            return None
    else:
        value = {"1": 1, "0": 0}.get(reply.strip().rstrip("."))
    return bool(value) if value in (0, 1) else None
