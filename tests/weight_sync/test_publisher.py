"""What a publisher does with a version: transfer, then compare. Learner and engines are stand-ins, files are real."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest

from tinyr1v_ray.config.weights import WeightSettings
from tinyr1v_ray.errors import PlacementError, RunFolderError, WeightSyncError
from tinyr1v_ray.learner.rank import LearnerRank
from tinyr1v_ray.types import Prompt
from tinyr1v_ray.weight_sync.cpu_file.transport import FileSource, FileTransport, FileUpdate
from tinyr1v_ray.weight_sync.publisher import VerifiedPublisher
from tinyr1v_ray.weight_sync.transport import Edge
from tinyr1v_ray.weight_sync.transports import TRANSPORTS

CANARY = Prompt("canary", "math", "?", "1", (5,)), np.array([7, 8], np.int32)
LOGPROBS = np.array([-1.0, -2.0], np.float32)


class Weights:
    """Weights that are written as the version in their metadata."""

    def write(self, path: Path, metadata: dict[str, str]) -> None:
        path.write_text(metadata["version"])


class BothEnds:
    """A learner and two engines, the second of which is `gap` off at one token, and a record of what they were told."""

    num_engines = 2

    def __init__(self, gap: float = 0.0) -> None:
        self.gap = gap
        self.calls: list[Any] = []

    async def everywhere(self, method: Callable[..., Any], timeout_s: float, *args: Any) -> Any:
        await asyncio.sleep(0)
        if method is LearnerRank.with_weights:
            return args[0](cast(Any, Weights()))
        assert method is LearnerRank.token_logprobs
        self.calls.append(args)
        return LOGPROBS

    async def connect(self, sources: Sequence[FileSource], timeout_s: float) -> None:
        self.calls.append(list(sources))

    async def load_weights(self, version: int, update: FileUpdate, timeout_s: float) -> None:
        self.calls.append((version, Path(update.path).read_text()))

    async def score(self, prompt: Prompt, token_ids_T: np.ndarray, timeout_s: float) -> dict[str, np.ndarray]:
        self.calls.append((prompt, token_ids_T))
        return {"rollout-0": LOGPROBS, "rollout-1": LOGPROBS + np.array([0.0, self.gap], np.float32)}


def publisher(ends: BothEnds, folder: Path) -> VerifiedPublisher:
    settings = WeightSettings(folder=str(folder))
    return VerifiedPublisher(Edge(cast(Any, ends), cast(Any, ends), settings, "float32", "run"), CANARY)


@pytest.mark.parametrize("gap", [0.0, 5e-4])
def test_every_engine_is_compared_with_the_learner_after_the_transfer(gap: float, tmp_path: Path) -> None:
    ends = BothEnds(gap)
    asyncio.run(publisher(ends, tmp_path).publish(3))
    assert ends.calls == [(3, "3"), CANARY, CANARY]


@pytest.mark.parametrize("gap", [2e-3, -2e-3, np.nan])
def test_an_engine_that_differs_ends_the_publication(gap: float, tmp_path: Path) -> None:
    ends = BothEnds(gap)
    with pytest.raises(WeightSyncError, match=r"version 3: rollout-1 gives log-prob .* to token 1"):
        asyncio.run(publisher(ends, tmp_path).publish(3))
    assert ends.calls == [(3, "3"), CANARY, CANARY]


def test_the_live_versions_file_stays_for_replacements_and_the_folder_goes_at_the_end(tmp_path: Path) -> None:
    ends, folder = BothEnds(), tmp_path / "run"
    folder.mkdir()
    (folder / "version-000009.safetensors").write_text("left by a killed run")
    published = publisher(ends, tmp_path)

    async def run() -> None:
        await published.connect()
        for version in (0, 1, 1):  # a resumed run publishes the version that it has
            await published.publish(version)
            assert [path.name for path in folder.iterdir()] == [f"version-{version:06d}.safetensors"]

    asyncio.run(run())
    assert ends.calls[0] == [FileSource(), FileSource()]
    published.close()
    assert not folder.exists()


def test_a_folder_that_cannot_take_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder; new weights pass through it"):
        FileTransport.check_usable(WeightSettings(folder=str(tmp_path / "missing")))
    FileTransport.check_usable(WeightSettings(folder=str(tmp_path)))
    with pytest.raises(PlacementError, match="/dev/shm is the memory of one node, the cluster has 2"):
        FileTransport.check_reach(WeightSettings(), 2)
    FileTransport.check_reach(WeightSettings(folder=str(tmp_path)), 2)


def test_every_backend_that_may_be_set_has_a_transport() -> None:
    assert set(TRANSPORTS) == set(get_args(WeightSettings.model_fields["backend"].annotation))
