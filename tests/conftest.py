"""What every test may rely on."""

import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background work with interrupts ignored, and children inherit that; tests interrupt children.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the hub's library is imported

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="module")
def torch_threads() -> Iterator[None]:
    """Engines and merges set the number of threads for their process; the next module finds it as it was."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    yield
    if torch:
        torch.set_num_threads(before)
