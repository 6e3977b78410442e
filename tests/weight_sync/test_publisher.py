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
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.types import Completion, Finish, Prompt, RolloutGroup
from tinyr1v_ray.weight_sync.agreement import gap_between, learned_limits
from tinyr1v_ray.weight_sync.cpu_file.transport import FileSource, FileTransport, FileUpdate
from tinyr1v_ray.weight_sync.publisher import VerifiedPublisher
from tinyr1v_ray.weight_sync.transport import Edge
from tinyr1v_ray.weight_sync.transports import TRANSPORTS

PROMPT = Prompt("canary", "math", "?", "1", (5,))
TOKENS = np.array([7, 8], np.int32)
LOGPROBS = np.array([-1.0, -2.0], np.float32)
SAMPLED, SCORED = "sampled", "scored"


class Weights:
    """Weights that are written as the version in their metadata."""

    def write(self, path: Path, metadata: dict[str, str]) -> None:
        path.write_text(metadata["version"])


class BothEnds:
    """A learner and two engines, and a record of what they were told.

    The second engine's logit of one of two tokens is off by the next of `gaps` whenever it scores.
    """

    num_engines = 2

    def __init__(self, *gaps: float) -> None:
        self.gaps = iter(gaps)
        self.calls: list[Any] = []

    async def everywhere(self, method: Callable[..., Any], timeout_s: float, *args: Any) -> Any:
        await asyncio.sleep(0)
        if method is LearnerRank.with_weights:
            action, own_timeout_s = args
            assert own_timeout_s < timeout_s  # a rank that is late says so itself
            return action(cast(Any, Weights()))
        assert (method, args) == (LearnerRank.token_logprobs, (PROMPT, TOKENS))
        return LOGPROBS

    async def connect(self, sources: Sequence[FileSource], timeout_s: float) -> None:
        self.calls.append(list(sources))

    async def load_weights(self, version: int, update: FileUpdate, timeout_s: float) -> None:
        self.calls.append((version, Path(update.path).read_text()))

    async def sample(self, prompt: Prompt, sampling: Sampling) -> RolloutGroup:
        assert (prompt, sampling.temperature, sampling.max_tokens, sampling.shares_cache) == (PROMPT, 0.0, 8, False)
        self.calls.append(SAMPLED)
        return RolloutGroup(prompt, (Completion(TOKENS, LOGPROBS, "", Finish.STOP, 0, 0),))

    async def score(self, prompt: Prompt, token_ids_T: np.ndarray, timeout_s: float) -> dict[str, np.ndarray]:
        assert (prompt, token_ids_T.tolist()) == (PROMPT, TOKENS.tolist())
        self.calls.append(SCORED)
        off_T = np.array([0.0, next(self.gaps, 0.0)]) * -np.expm1(LOGPROBS)
        return {"rollout-0": LOGPROBS, "rollout-1": (LOGPROBS + off_T).astype(np.float32)}

    def replace(self, engine: str, cause: Exception) -> None:
        assert isinstance(cause, WeightSyncError)
        self.calls.append(engine)


def publisher(ends: BothEnds, folder: Path, dtype: str = "float32", tolerance: float = 0.0) -> VerifiedPublisher:
    settings = WeightSettings(folder=str(folder), canary_tolerance=tolerance)
    return VerifiedPublisher(Edge(cast(Any, ends), cast(Any, ends), settings, dtype, "run"), PROMPT, 8)


def publish(publisher: VerifiedPublisher, *versions: int) -> None:
    async def run() -> None:
        for version in versions:
            await publisher.publish(version)

    asyncio.run(run())


def test_every_engine_is_compared_with_the_learner_after_each_transfer(tmp_path: Path) -> None:
    ends = BothEnds(0.0, 4e-4)
    publish(publisher(ends, tmp_path), 3, 4)
    assert ends.calls == [(3, "3"), SAMPLED, SCORED, (4, "4"), SCORED]


@pytest.mark.parametrize("gap", [2e-2, -2e-2, np.nan])
def test_an_engine_that_differs_gets_the_weights_once_more(gap: float, tmp_path: Path) -> None:
    ends = BothEnds(gap, 0.0)
    publish(publisher(ends, tmp_path), 3)
    assert ends.calls == [(3, "3"), SAMPLED, SCORED, (3, "3"), SCORED]


def test_one_that_still_differs_is_replaced(tmp_path: Path) -> None:
    ends = BothEnds(0.0, 0.02, 0.02, 0.0)
    publish(publisher(ends, tmp_path), 3, 4)
    assert ends.calls[3:] == [(4, "4"), SCORED, (4, "4"), SCORED, "rollout-1", SCORED]


def test_a_replacement_that_differs_too_ends_the_run(tmp_path: Path) -> None:
    ends = BothEnds(0.02, 0.02, 0.02)
    with pytest.raises(
        WeightSyncError, match=r"version 3: rollout-1 gives log-prob -1.98271 to token 1 .* learner -2; "
    ):
        publish(publisher(ends, tmp_path), 3)
    assert ends.calls == [(3, "3"), SAMPLED, SCORED, (3, "3"), SCORED, "rollout-1", SCORED]


def is_refused(dtype: str, tolerance: float, *gaps: float, folder: Path) -> bool:
    """Whether the last of these gaps, at a version each, makes the version be sent again."""
    ends = BothEnds(*gaps)
    publish(publisher(ends, folder, dtype, tolerance), *range(len(gaps)))
    last = len(gaps) - 1
    return ends.calls.count((last, str(last))) == 2


@pytest.mark.parametrize(
    ("dtype", "tolerance", "gaps", "refused"),
    [
        ("float32", 0.0, (0.004,), False),  # of the first version: a mean of 0.002 over two tokens
        ("float32", 0.0, (0.006,), True),
        ("float32", 0.0, (1e-5, 4e-4), False),
        ("float32", 0.0, (1e-5, 6e-4), True),
        ("bfloat16", 0.0, (0.4,), False),
        ("bfloat16", 0.0, (0.6,), True),  # a mean of 0.3
        ("bfloat16", 0.0, (0.001, 0.06), False),
        ("bfloat16", 0.0, (0.001, 0.07), True),  # a mean of 0.035
        ("bfloat16", 0.0, (0.05, 0.19), False),  # four times what the first version showed
        ("bfloat16", 0.0, (0.05, 0.21), True),
        ("bfloat16", 0.2, (0.05, 0.09), False),  # as set: nothing is learned
        ("bfloat16", 0.2, (0.05, 0.11), True),
    ],
)
def test_limits_follow_from_the_first_version(
    dtype: str, tolerance: float, gaps: tuple[float, ...], refused: bool, tmp_path: Path
) -> None:
    assert is_refused(dtype, tolerance, *gaps, folder=tmp_path) == refused


def test_mean_and_tail_are_judged_both() -> None:
    limits = learned_limits("bfloat16", mean=0.02, tail=0.07)
    learner_T = np.full(32, -30.0)  # 1 - p is 1
    everywhere = gap_between(learner_T, learner_T - 0.09)
    somewhere = gap_between(learner_T, learner_T - 0.6 * (np.arange(32) == 5))
    assert not limits.admit(everywhere) and everywhere.tail < limits.tail
    assert not limits.admit(somewhere) and somewhere.mean < limits.mean
    assert limits.admit(gap_between(learner_T, learner_T - 0.07))


@pytest.mark.parametrize("logit", [-5.0, 0.0, 5.0, 8.0])
def test_a_gap_is_that_of_the_logits_however_sure_the_policy_is(logit: float) -> None:
    """The logit of one of 50 tokens is off by 1e-3; it has 0.01 to 98 % of the probability."""

    def logprob(token_logit: float) -> np.ndarray:
        logits_V = np.r_[token_logit, np.linspace(-1.0, 1.0, 49)]
        return np.array([token_logit - np.log(np.exp(logits_V).sum())])

    assert gap_between(logprob(logit), logprob(logit + 1e-3)).tail == pytest.approx(1e-3, rel=1e-3)
    sure = np.array([-1e-6])
    assert gap_between(sure, sure - 2e-6).tail == pytest.approx(2e-4)  # rounding next to 0 is not blown up


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
