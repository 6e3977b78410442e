"""An index on loopback that has nothing but CPU builds of torch: their metadata, which is all that resolving needs."""

from __future__ import annotations

import functools
import http.server
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEPENDENCIES = ("filelock", "typing-extensions>=4.10.0", "setuptools>=77.0.3", "sympy>=1.13.3", "networkx>=2.5.1")
DEPENDENCIES += ("jinja2", "fsspec>=0.8.5")
"""What torch 2.13.0+cpu requires."""


class Recording(http.server.SimpleHTTPRequestHandler):
    """Serves files and remembers what it was asked for."""

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Kept by the server instead of written."""
        self.server.asked.append(self.path)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def write_torch_wheels(folder: Path, version: str) -> list[str]:
    """Wheels of that version for Python 3.11 and 3.12 on Linux; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_write_wheel(folder, version, tag) for tag in ("cp311", "cp312")]


@contextmanager
def torch_index(folder: Path, version: str) -> Iterator[tuple[str, list[str]]]:
    """Address of an index with these wheels, and what it has been asked for."""
    names = write_torch_wheels(folder / "torch", version)
    links = "\n".join(f'<a href="{name.replace("+", "%2B")}">{name}</a><br>' for name in names)
    (folder / "torch" / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}\n</body></html>\n")
    handler = functools.partial(Recording, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def _write_wheel(folder: Path, version: str, tag: str) -> str:
    name, record = f"torch-{version}-{tag}-{tag}-manylinux_2_28_x86_64.whl", f"torch-{version}.dist-info"
    metadata = ["Metadata-Version: 2.4", "Name: torch", f"Version: {version}", "Requires-Python: >=3.10"]
    metadata += [f"Requires-Dist: {each}" for each in DEPENDENCIES]
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr(f"{record}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(
            f"{record}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}-{tag}-linux_x86_64\n"
        )
        wheel.writestr(f"{record}/RECORD", "")
    return name
