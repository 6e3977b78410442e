"""A view of a run as a page on this machine's loopback: rendered here, asked for again every two seconds."""

from __future__ import annotations

import mimetypes
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from tinyr1v_ray.errors import ConfigError, TinyR1VError
from tinyr1v_ray.evaluation.reading import visible
from tinyr1v_ray.telemetry.board import GroupState
from tinyr1v_ray.telemetry.progress import format_duration
from tinyr1v_ray.watch.view import View, Watcher, resampled
from tinyr1v_ray.watch.waits import condition, waits

LOOPBACK = "127.0.0.1"
_NAMES = {LOOPBACK, "localhost"}
"""What a browser may call this server: a page elsewhere that points its own name here is not answered."""
_POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
_IMAGE = re.compile(r"/images/([0-9a-f]{32}\.[a-z]{1,5})")
_CURVE_POINTS, _CURVE_HEIGHT = 120, 40


@contextmanager
def page_if_asked(folder: Path, port: int, say: Callable[[str], None]) -> Iterator[None]:
    """Serve the page where a port is set, and say where it is."""
    with ExitStack() as stack:
        if port:
            say(f"page: {stack.enter_context(page_served(folder, port))}")
        yield


@contextmanager
def page_served(folder: Path, port: int) -> Iterator[str]:
    """Serve the page of a run, which need not be there yet, for the length of the block; its address.

    Port 0 is one that is free. Raises ConfigError for a port in use.
    """
    watcher, lock = Watcher(folder), threading.Lock()

    def look() -> View:
        with lock:
            return watcher.look()

    handler = type("RunHandler", (_Handler,), {"look": staticmethod(look)})
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError as error:
        raise ConfigError(
            f"port {port} of {LOOPBACK} cannot be had: {error.strerror}; a page has a port of its own; name another"
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="page", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers with the page, or with one of the images in it."""

    @staticmethod
    def look() -> View:
        """The run as it stands."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """One page, and the images that it shows."""
        image = _IMAGE.fullmatch(self.path)
        if self.headers.get("Host", "").rpartition(":")[0] not in _NAMES:
            self._answer(HTTPStatus.FORBIDDEN, b"", "text/plain")
        elif self.path == "/":
            self._answer(*self._page(), "text/html; charset=utf-8")
        elif image is None:
            self._answer(HTTPStatus.NOT_FOUND, b"", "text/plain")
        else:
            self._image(image.group(1))

    def _page(self) -> tuple[HTTPStatus, bytes]:
        try:
            return HTTPStatus.OK, render(self.look()).encode()
        except TinyR1VError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, _template("refusal.html").render(said=str(error)).encode()

    def _image(self, name: str) -> None:
        try:
            content = (self.look().images / "images" / name).read_bytes()
        except (OSError, TinyR1VError):
            self._answer(HTTPStatus.NOT_FOUND, b"", "text/plain")
        else:
            self._answer(HTTPStatus.OK, content, mimetypes.guess_type(name)[0] or "application/octet-stream", 86400)

    def _answer(self, status: HTTPStatus, content: bytes, kind: str, max_age_s: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", f"max-age={max_age_s}" if max_age_s else "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said of requests."""


def render(view: View) -> str:
    """The page, whatever models wrote in it."""
    return visible(_template("page.html").render(view=view, waits=waits(view), all_states=list(GroupState)))


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": format_duration,
        "curve": curve,
        "condition": condition,
        "clock": lambda seconds: time.strftime("%H:%M:%S", time.localtime(seconds)),
    }
    return environment.get_template(name)


def curve(points: Sequence[tuple[int, float]]) -> str:
    """Points of an SVG polyline, in a box of _CURVE_POINTS x _CURVE_HEIGHT.

    >>> curve([(1, 0.0), (2, 1.0)])
    '0.0,38.0 120.0,2.0'
    """
    values = resampled([value for _, value in points], _CURVE_POINTS)
    low, span = min(values), (max(values) - min(values)) or 1.0
    across = _CURVE_POINTS / max(1, len(values) - 1)
    down = _CURVE_HEIGHT - 4
    return " ".join(f"{i * across:.1f},{2 + down * (1 - (value - low) / span):.1f}" for i, value in enumerate(values))
