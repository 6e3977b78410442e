"""When a run saves, and what: the learner's state, that of the advantages, and how far the run is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tinyr1v_ray.checkpoint.manifest import RunState
from tinyr1v_ray.checkpoint.store import CheckpointFolder
from tinyr1v_ray.cluster.learner_group import LearnerGroup
from tinyr1v_ray.config.base import write_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.learner.rank import LearnerRank
from tinyr1v_ray.telemetry.run_folder import installed_packages


class Checkpoints:
    """Port `CheckpointStore`: saves every `checkpoint.every_n_steps` steps and at the last."""

    def __init__(self, store: CheckpointFolder, config: TrainConfig, learner: LearnerGroup) -> None:
        self._store, self._config, self._learner = store, config, learner

    async def after_step(self, step: int, cursor: int, state: Mapping[str, float]) -> None:
        """Save if the step is due."""
        if step % self._config.checkpoint.every_n_steps and step != self._config.run.num_steps:
            return
        with self._store.writing(step, await self._learner.everywhere(LearnerRank.state_bytes, 60.0)) as pending:
            timeout_s = self._config.learner.update_timeout_s
            await self._learner.everywhere(LearnerRank.save, timeout_s, pending.folder)
            write_settings(self._config, pending.folder / "config.yaml")
            run_state = RunState(step, cursor, installed_packages(), state)
            await asyncio.to_thread(pending.commit, run_state)  # hashing and syncing may take minutes
