"""A headless Chromium that is asked over its debugging pipe: open a page, resize, evaluate, take a picture."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
HAND_OVER = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from file descriptor 3 and writes answers to 4."""
DEADLINE_S = 60.0


def find_chromium() -> str | None:
    """Path of a Chromium, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. `complaints` collects errors of scripts, of the console and of loading, and requests to elsewhere."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer, self._number, self._session = b"", 0, ""
        self.complaints: list[str] = []
        self._loaded, self._home = False, "file:"
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, page: Path | str, width_px: int, height_px: int = 900, dark: bool = False) -> None:
        """Load a file, or a server's page, at a width and wait until all of it is there."""
        address = page if isinstance(page, str) else page.as_uri()
        self._home = address if isinstance(page, str) else "file:"
        size = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": width_px < 700}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._take(time.monotonic() + DEADLINE_S)

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; a promise is awaited."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def picture(self, path: Path) -> None:
        """What is seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what happens meanwhile is noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + DEADLINE_S
        while True:
            reply = self._take(end)
            if reply.get("id") == self._number:
                assert "error" not in reply, (method, reply)
                return dict(reply["result"])

    def _take(self, end: float) -> dict[str, Any]:
        """The next message."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium says nothing for {DEADLINE_S:g} s"
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, said: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {said['exceptionDetails']}")
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(f"console: {said['args']}")
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"log: {said['entry']['text']}")
        elif method == "Network.requestWillBeSent" and not said["request"]["url"].startswith((self._home, "data:")):
            self.complaints.append(f"request: {said['request']['url']}")


@contextmanager
def browsing(executable: str, folder: Path) -> Iterator[Page]:
    """A page in a fresh profile under `folder`; the browser and all its children are gone afterwards."""
    (their_end, commands), (answers, their_other_end) = os.pipe(), os.pipe()
    flags = [*FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "about:blank"]
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, str(their_end), str(their_other_end), executable, *flags],
            pass_fds=(their_end, their_other_end),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(their_end), os.close(their_other_end)
    try:
        yield Page(commands, answers)
    finally:
        os.close(commands), os.close(answers)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=DEADLINE_S)
