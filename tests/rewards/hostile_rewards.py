"""Scoring functions as users, and misfortune, write them."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

NOT_A_FUNCTION = 3


def by_text(text: str, answer: str, question: str, domain: str) -> object:  # noqa: C901 - a case a misfortune
    """Does what the completion says."""
    match text.split()[0]:
        case "hang":
            time.sleep(60)
        case "hang_in_c":
            re.match(r"(a+)+$", "a" * 40 + "b")
        case "hang_deaf":
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGIO):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(60)
        case "spawn_and_hang":
            child = subprocess.Popen(["sleep", "60"])
            Path(answer).write_text(str(child.pid))
            time.sleep(60)
        case "segfault":
            ctypes.string_at(0)
        case "os_exit":
            os._exit(3)
        case "sys_exit":
            sys.exit(0)
        case "raise":
            raise KeyError("no\nsuch key")
        case "recurse":
            return by_text(text, answer, question, domain)
        case "eat_memory":
            blocks = []
            while True:
                blocks.append(np.empty(1 << 28, np.uint8))  # reserved, not touched: quick
        case "nan":
            return float("nan")
        case "above_one":
            return 1.5
        case "string":
            return "1.0"
        case "none":
            return None
        case "empty_mapping":
            return {}
        case "bad_verdict":
            return {"score": 1.0, "correct": "yes"}
        case "print":
            print("a line on standard output")
            return 0.5
        case "pid":
            return {"score": 1.0, "pid": os.getpid()}
    return float(text.split()[1])


def with_parts(text: str, answer: str, question: str, domain: str) -> dict[str, object]:
    return {"score": 0.25, "correct": True, "seen": len(text) + len(answer) + len(question) + len(domain)}
