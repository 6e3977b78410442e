"""The server of the page: what it answers, and to whom."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from recorded_run import record_run

from tinyr1v_ray.cli.main import main
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.jobs.recipe import job as pipeline
from tinyr1v_ray.jobs.train import job as training
from tinyr1v_ray.watch.page import page_if_asked, page_served

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with page_served(folder, 0) as address:
        yield address


def get(address: str, path: str, host: str = "localhost:1") -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(address.split("/")[2], timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    return response, response.read()


def test_the_page_and_its_images_are_served_and_nothing_else(address: str, folder: Path) -> None:
    response, content = get(address, "/")
    page = content.decode()
    assert response.status == 200 and response.getheader("Cache-Control") == "no-store"
    images = re.findall(r'src="(/images/[^"]+)"', page)
    assert images
    for image in images:
        response, content = get(address, image)
        assert response.getheader("Content-Type") == "image/png"
        assert content == (folder / "samples" / image[1:]).read_bytes()
    for path in ("/config.yaml", "/images/../../config.yaml", "/images/%2e%2e/config.yaml", f"/images/{32 * '0'}.png"):
        assert get(address, path)[0].status == 404


def test_what_a_model_wrote_is_text_and_no_markup(address: str) -> None:
    page = get(address, "/")[1].decode()
    assert "&lt;script&gt;document.title" in page and "How many &lt;b&gt;triangles" in page
    assert page.count("<script>") == 1


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1:8", 200), ("localhost:9999", 200), ("evil.example:80", 403), ("evil.example", 403)]
)
def test_a_page_elsewhere_that_points_its_name_here_is_not_answered(address: str, host: str, status: int) -> None:
    assert get(address, "/", host)[0].status == status


def test_only_this_machine_is_served(address: str) -> None:
    port = int(address.split(":")[2].strip("/"))
    with socket.socket() as elsewhere, pytest.raises(OSError, match="refused"):
        elsewhere.connect(("127.0.0.2", port))


def test_a_run_that_has_not_begun_is_waited_for(tmp_path: Path) -> None:
    with page_served(tmp_path / "run", 0) as address:
        response, content = get(address, "/")
        assert response.status == 503 and b"holds no config.yaml" in content and b'http-equiv="refresh"' in content
        record_run(tmp_path / "run")
        assert get(address, "/")[0].status == 200


def test_a_page_is_there_where_it_is_asked_for(tmp_path: Path) -> None:
    said: list[str] = []
    with page_if_asked(tmp_path, 0, said.append):
        assert said == []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with page_if_asked(tmp_path, port, said.append):
        assert said == [f"page: http://127.0.0.1:{port}/"]
    with pytest.raises(OSError, match="refused"):
        get(f"http://127.0.0.1:{port}/", "/")


def test_a_port_in_use_is_refused_before_anything_is_started(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for module in (training, pipeline):
        monkeypatch.setattr(module, "connected", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words in (
            ["watch", str(folder), "--page", str(port)],
            ["train", "--config", str(CONFIGS / "miniature_ocr_cpu.yaml"), f"telemetry.page_port={port}"],
            ["run", "--config", str(CONFIGS / "recipe_miniature_cpu.yaml"), f"page_port={port}", "progress=false"],
        ):
            assert main(words) == 2
            said = capsys.readouterr().err.splitlines()[-1]
            assert said == (
                f"tinyr1v: port {port} of 127.0.0.1 cannot be had: Address already in use; a page has a port of its "
                "own; name another"
            )
        with pytest.raises(ConfigError), page_served(folder, port):
            pass
    assert list(tmp_path.iterdir()) == []
