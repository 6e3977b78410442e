"""The loop's ports with somebody looking on: they tell the board where every group is, and what the loop does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinyr1v_ray.ports import RewardScorer, RolloutEngine
from tinyr1v_ray.telemetry.board import Board, GroupState
from tinyr1v_ray.telemetry.progress import RunProgress
from tinyr1v_ray.telemetry.timing import PhaseClock
from tinyr1v_ray.types import Prompt, RolloutGroup, ScoredGroup


@dataclass(frozen=True)
class WatchedRollouts:
    """Port `RolloutEngine`."""

    rollouts: RolloutEngine
    board: Board

    async def generate(self, prompt: Prompt) -> RolloutGroup:
        """The group of a prompt."""
        self.board.move(prompt, GroupState.SAMPLING)
        return await self.rollouts.generate(prompt)


@dataclass(frozen=True)
class WatchedScorer:
    """Port `RewardScorer`."""

    scorer: RewardScorer
    progress: RunProgress

    async def score(self, group: RolloutGroup) -> ScoredGroup:
        """Score, and count for the progress display."""
        board, prompt = self.progress.board, group.prompt
        board.move(prompt, GroupState.SCORING)
        scored = await self.scorer.score(group)
        board.move(prompt, GroupState.READY)
        self.progress.count_group()
        return scored


class WatchedClock(PhaseClock):
    """A clock whose phases are what the driver does."""

    def __init__(self, board: Board) -> None:
        super().__init__()
        self._board = board

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the body's wall time."""
        with self._board.doing(phase), super().__call__(phase):
            yield
