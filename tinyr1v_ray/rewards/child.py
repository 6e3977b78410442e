"""The scoring process: `python -m tinyr1v_ray.rewards.child CHANNEL LIFELINE`, started by `isolation.ScoringProcess`.

It scores what arrives on the CHANNEL socket, one reply an item. It dies with its owner even while foreign code hangs in
C: the kernel kills it when the other end of the LIFELINE pipe closes.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import sys
from types import SimpleNamespace
from typing import Any

from tinyr1v_ray.config.custom_function import told
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.rewards.score import AnswerScorer, build_scorer
from tinyr1v_ray.rewards.wire import receive_message, send_message

MAX_MEMORY_BYTES = 4 * 1024**3
"""Memory a scoring process may take before allocations fail, so that one item cannot take the node's."""


def main(channel_fd: int, lifeline_fd: int) -> None:
    """Serve until the owner closes the channel."""
    _die_with_owner(lifeline_fd)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=channel_fd) as channel:
        try:
            rules = SimpleNamespace(**receive_message(channel))
            scorer = _build(channel, rules)
            while scorer is not None:
                for item in receive_message(channel):
                    send_message(channel, _score(scorer, item))
        except (EOFError, ConnectionError):
            return


def _die_with_owner(lifeline_fd: int) -> None:
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC)


def _build(channel: socket.socket, rules: Any) -> AnswerScorer | None:
    """The scorer, after telling the owner that it stands, or why it does not."""
    try:
        scorer = build_scorer(rules)
    except ConfigError as error:
        send_message(channel, {"refused": str(error)})
        return None
    send_message(channel, {"ready": os.getpid()})
    return scorer


def _score(scorer: AnswerScorer, item: list[Any]) -> dict[str, Any]:
    try:
        score = scorer(*item)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - supervision: costs one item
        return {"failure": told(error)}
    return {"total": score.total, "parts": dict(score.parts), "correct": score.correct}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
