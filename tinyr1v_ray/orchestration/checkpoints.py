"""When a run saves, and what: the learner's state, and how far the run is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tinyr1v_ray.checkpoint.manifest import RunState
from tinyr1v_ray.checkpoint.store import CheckpointFolder
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.orchestration.learner_group import LearnerGroup
from tinyr1v_ray.telemetry.run_folder import installed_packages


class Checkpoints:
    """Port `CheckpointStore`: saves every `checkpoint.every_n_steps` steps and at the last."""

    def __init__(self, folder: Path, config: TrainConfig, learner: LearnerGroup) -> None:
        self._store = CheckpointFolder(folder, config.checkpoint.keep_last)
        self._config, self._learner = config, learner

    async def restore(self, allow_previous: bool) -> tuple[int, int]:
        """Bring the learner to the newest checkpoint; returns its step and cursor, (0, 0) when there is none.

        Raises CheckpointError when it is damaged and `allow_previous` does not let it be passed over.
        """
        checkpoint = self._store.latest(allow_previous)
        if checkpoint is None:
            return 0, 0
        await self._learner.restore(checkpoint.folder)
        return checkpoint.state.step, checkpoint.state.cursor

    async def after_step(self, step: int, cursor: int) -> None:
        """Save if the step is due."""
        if step % self._config.checkpoint.every_n_steps and step != self._config.run.num_steps:
            return
        with self._store.writing(step, await self._learner.state_bytes()) as pending:
            await self._learner.save(pending.folder)
            pending.commit(self._state(step, cursor))

    def latest_folder(self) -> Path:
        """Where the newest checkpoint lies."""
        return self._store.path(max(self._store.steps()))

    def _state(self, step: int, cursor: int) -> RunState:
        digest = hashlib.sha256(self._config.model_dump_json().encode()).hexdigest()
        return RunState(step, cursor, digest, installed_packages())
