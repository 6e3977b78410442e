"""The one edge that goes back: new weights, from the learner to every engine, verified."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np

from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.orchestration.learner_group import LearnerGroup
from tinyr1v_ray.orchestration.rollout_pool import RolloutPool
from tinyr1v_ray.types import Prompt
from tinyr1v_ray.weights.agreement import check_agreement


class FilePublisher:
    """Port `WeightPublisher` over a file on the node (backend `cpu_file`).

    `canary` is a prompt and the tokens whose log-probs engine and learner must agree on; it has an image where the
    data has images, so that the vision tower is checked too. The file of the live version is kept for engines that
    are replaced; `close` removes
    `folder`, which is made here and is the run's own.
    """

    def __init__(
        self,
        learner: LearnerGroup,
        rollouts: RolloutPool,
        config: TrainConfig,
        canary: tuple[Prompt, np.ndarray],
        folder: Path,
    ) -> None:
        self._learner, self._rollouts, self._config, self._canary = learner, rollouts, config, canary
        self._folder = folder
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise RunFolderError(
                f"weights.folder {folder.parent}: {error.strerror}; new weights pass through it, so it must be a "
                "writable folder; name another one"
            ) from error
        self._live: Path | None = None
        self.largest_difference = 0.0

    async def publish(self, version: int) -> None:
        """Write, load everywhere, compare; then the file of the version before goes."""
        path = self._folder / f"version-{version:06d}.safetensors"
        prompt, token_ids_T = self._canary
        await self._learner.write_weights(path, version)
        expected_T, _ = await asyncio.gather(
            self._learner.token_logprobs(prompt, token_ids_T), self._rollouts.load_weights(version, {"path": str(path)})
        )
        seen = await self._rollouts.score(prompt, token_ids_T)
        self.largest_difference = check_agreement(version, expected_T, seen, self._config.weights.canary_tolerance)
        if self._live is not None and self._live != path:
            self._live.unlink(missing_ok=True)
        self._live = path

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
