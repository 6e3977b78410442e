"""The page in a real browser, as wide as a desk and as narrow as a phone, of a run that goes on meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page
from recorded_run import HOSTILE, record_run

from tinyr1v_ray.watch.page import page_served

pytestmark = pytest.mark.slow

PHONE_PX, DESK_PX = 390, 1280
SMALLEST_LETTERS_PX = 12.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A run in the midst of step 7: all that the page can show is there."""
    folder, now = Path(shutil.copytree(finished, tmp_path / "a_run_with_a_rather_long_name")), time.time()
    states = ["learning"] * 40 + ["ready"] * 10 + ["scoring"] * 5 + ["sampling"] * 45
    groups = [[18 + n, f"math-train-{n:05d}", state, now - 20 + n / 10] for n, state in enumerate(states)]
    put(
        folder,
        ended="",
        written=now,
        pid=os.getpid(),
        doing={"generate": now - 12},
        groups=groups,
        states={state: states.count(state) for state in states},
        loads={
            "rollout-0": {
                "num_groups": 45,
                "positions": [row[0] for row in groups[55:]],
                "num_restarts": 2,
                "is_up": True,
            },
            "scorer-0": {"num_groups": 5},
        },
    )
    event = {"time": now - 300, "text": f"rollout-0 is replaced (2): {'a_cause_without_a_space' * 9}"}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    return folder


def put(folder: Path, **changes: object) -> None:
    path = folder / "now.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    with page_served(folder, 0) as address:
        yield address


@pytest.fixture(params=[PHONE_PX, DESK_PX], ids=["phone", "desk"])
def page(request: pytest.FixtureRequest, browser: Page, address: str) -> Page:
    browser.complaints.clear()
    browser.open(address, request.param)
    return browser


def text(page: Page, section: str) -> str:
    return str(page.evaluate(f"document.getElementById('{section}').innerText"))


def test_everything_is_there_and_fits(page: Page) -> None:
    assert page.evaluate("document.title") == "a_run_with_a_rather_long_name · step 6/6" and page.complaints == []
    sentence = r"Now\nthe learner waits for group 68 \(math-train-00050\), which is being scored since \d.*, for \d.* s"
    assert re.fullmatch(sentence, text(page, "waits"))
    assert "40 learning" in text(page, "groups") and "100 groups in flight" in text(page, "groups")
    assert page.evaluate("document.querySelectorAll('.grid i').length") == 100
    assert "restarts: 2" in text(page, "loads") and "a_cause_without_a_space" in text(page, "events")
    assert HOSTILE in text(page, "samples")
    images = page.evaluate("[...document.images].map((image) => [image.complete, image.naturalWidth])")
    assert images == [[True, 56]] * 2
    assert page.evaluate("[...document.querySelectorAll('polyline')].map((line) => line.points.length)") == [6, 6, 6]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beyond = (
        "[...document.querySelectorAll('main *')].filter((part) => part.getBoundingClientRect().right > innerWidth)"
    )
    assert page.evaluate(f"{beyond}.map((part) => part.outerHTML.slice(0, 80))") == []
    sizes = "[...document.querySelectorAll('main *')].map((part) => parseFloat(getComputedStyle(part).fontSize))"
    assert min(page.evaluate(sizes)) >= SMALLEST_LETTERS_PX


def test_the_page_goes_on_with_the_run_and_says_when_nobody_answers(browser: Page, folder: Path) -> None:
    """What did not change is the same element as before."""
    waiting = "new Promise((done) => {{ const look = () => {} ? done(true) : setTimeout(look, 50); look(); }})"
    with page_served(folder, 0) as address:
        browser.open(address, PHONE_PX)
        browser.evaluate("document.querySelector('#samples article').isTheSame = 'yes'")
        put(folder, doing={"learn": time.time() - 3}, written=time.time())
        assert browser.evaluate(waiting.format("document.getElementById('waits').innerText.includes('trains step 7')"))
        assert browser.evaluate("document.querySelector('#samples article').isTheSame") == "yes"
    assert browser.evaluate(waiting.format("document.querySelector('.state').innerText.includes('no answer')"))
    assert "100 groups in flight" in text(browser, "groups")
    browser.complaints.clear()


def test_a_dark_page_is_dark(browser: Page, address: str) -> None:
    colours = []
    for dark in (False, True):
        browser.open(address, DESK_PX, dark=dark)
        colours.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(253, 253, 252)", "rgb(22, 25, 29)"]
