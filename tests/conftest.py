"""What every test may rely on."""

import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest
from chromium import Page, browsing, find_chromium

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background work with interrupts ignored, and children inherit that; tests interrupt children.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the hub's library is imported

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Torch begins every module with one thread: models are tiny here, and engines and merges set the number for their
    whole process.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A tab of a real browser; skipped where none is installed, unless TINYR1V_REQUIRE_BROWSER=1 insists on one."""
    executable = find_chromium()
    if executable is None:
        if os.environ.get("TINYR1V_REQUIRE_BROWSER") == "1":
            pytest.fail("no Chromium is installed, and TINYR1V_REQUIRE_BROWSER=1 asks for one")
        pytest.skip("no Chromium is installed")
    with browsing(executable, tmp_path_factory.mktemp("browser")) as page:
        yield page
