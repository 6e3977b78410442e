"""Scoring that cannot hang or crash the run: a child process under a hard deadline for each item.

Model output is hostile input: it finds the regular expression that never returns and the expression that fills the
memory. A deadline that is checked by the same process cannot interrupt C code, so the child is killed and replaced.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from tinyr1v_ray.config.custom_function import search_path
from tinyr1v_ray.config.reward import RewardSettings
from tinyr1v_ray.errors import ConfigError, RewardError
from tinyr1v_ray.rewards.score import check_domains
from tinyr1v_ray.rewards.wire import receive_message, send_message
from tinyr1v_ray.types import RolloutGroup, Score, ScoredGroup

START_TIMEOUT_S = 60.0
"""Longest start of a scoring process, a user's module included."""
_NUM_START_ATTEMPTS = 3


class ScoringProcess:
    """Scores groups in a child process that it starts, watches and replaces. Not safe to use from several threads.

    An item whose scoring takes longer than `reward.item_timeout_s`, kills the process, raises, or returns something
    else than a score comes back with total 0 and `failure` set; only an item that the process died of costs a restart.
    Raises ConfigError when the settings or the user's function are at fault, RewardError when no process can be
    started. Use as a context manager, or call `close`.
    """

    def __init__(self, settings: RewardSettings) -> None:
        self._settings = settings
        self._child: _Child | None = None
        self.num_restarts = 0
        self._start()

    def score_group(self, group: RolloutGroup) -> ScoredGroup:
        """One score per completion, in order; takes at most `item_timeout_s` an item, and the restarts."""
        prompt = group.prompt
        check_domains(self._settings, [prompt.domain])
        answers = [prompt.answer, *prompt.other_answers]
        items = [[completion.text, answers, prompt.question, prompt.domain] for completion in group.completions]
        return ScoredGroup(group, tuple(self.score_items(items)))

    def score_items(self, items: Sequence[Sequence[str | Sequence[str]]]) -> list[Score]:
        """Scores of (text, answer or accepted answers, question, domain) items, in order."""
        scores: list[Score] = []
        while len(scores) < len(items):
            child = self._submit(items[len(scores) :])
            try:
                while len(scores) < len(items):
                    scores.append(_read_score(child.receive(self._settings.item_timeout_s)))
            except TimeoutError:
                scores.append(self._lost(f"took longer than {self._settings.item_timeout_s:g} s"))
            except (EOFError, OSError):
                scores.append(self._lost("the scoring process died"))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                scores.append(self._lost(f"the scoring process sent no score: {error}"))
        return scores

    def close(self) -> None:
        """Kill the child and wait for it; more calls do nothing."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> ScoringProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _submit(self, items: Sequence[Sequence[str | Sequence[str]]]) -> _Child:
        """Hand items to a living child; one that died between groups is replaced, which is no item's fault."""
        for _ in range(_NUM_START_ATTEMPTS):
            child = self._child or self._start()
            with contextlib.suppress(OSError):
                child.send(items, self._settings.item_timeout_s)
                return child
            self._replace()
        raise RewardError(
            "the scoring process dies before it reads anything; it must take items; see its messages above"
        )

    def _lost(self, reason: str) -> Score:
        """The score of the item that the child died of, or is killed for."""
        return Score(0.0, failure=f"{reason} (exit status {self._replace()})")

    def _replace(self) -> int:
        """Put an end to the child; the next item starts another. Its exit status."""
        status = self._child.kill() if self._child is not None else 0
        self._child = None
        self.num_restarts += 1
        return status

    def _start(self) -> _Child:
        reason = ""
        for _ in range(_NUM_START_ATTEMPTS):
            child = _Child()
            try:
                child.send(self._settings.model_dump(mode="json"), START_TIMEOUT_S)
                reply = child.receive(START_TIMEOUT_S)
            except TimeoutError:
                reason = f"not ready after {START_TIMEOUT_S:g} s"
            except (EOFError, OSError, ValueError) as error:
                reason = f"{type(error).__name__} {error}".strip()
            else:
                if "refused" not in reply:
                    self._child = child
                    return child
                child.kill()
                raise ConfigError(reply["refused"])
            status = child.kill()
        raise RewardError(
            f"the scoring process did not start ({reason}, exit status {status}) in {_NUM_START_ATTEMPTS} attempts; it "
            "must be ready to score; see its messages above"
        )


class _Child:
    """One process, its socket, and the pipe whose closing kills it."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        environment = {**os.environ, "PYTHONPATH": search_path(), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tinyr1v_ray.rewards.child", str(theirs.fileno()), str(lifeline)]
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=(theirs.fileno(), lifeline),
                start_new_session=True,
            )
        os.close(lifeline)

    def send(self, message: Any, timeout_s: float) -> None:
        send_message(self._channel, message, timeout_s)

    def receive(self, timeout_s: float) -> Any:
        return receive_message(self._channel, time.monotonic() + timeout_s)

    def kill(self) -> int:
        """Kill the process and all that it started; its exit status (negative: the signal)."""
        status = self._process.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._channel.close()
        os.close(self._lifeline)
        final = self._process.wait()
        return final if status is None else status


def _read_score(reply: dict[str, Any]) -> Score:
    if "failure" in reply:
        return Score(0.0, failure=str(reply["failure"]))
    parts = {str(name): float(value) for name, value in reply["parts"].items()}
    return Score(float(reply["total"]), parts, bool(reply["correct"]))
