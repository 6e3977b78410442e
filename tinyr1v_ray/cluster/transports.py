"""Ways in which weights get from the learner to the engines; which one is `weights.backend`."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, Protocol

from tinyr1v_ray.cluster.learner_group import LearnerGroup
from tinyr1v_ray.cluster.rollout_pool import RolloutPool
from tinyr1v_ray.config.folders import why_not_creatable
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import RunFolderError


class WeightTransport(Protocol):
    """Moves weights; does not check them."""

    async def connect(self) -> None:
        """Once, before the first transfer."""

    async def send(self, version: int) -> None:
        """Make the learner's weights live in every engine, as `version`."""

    def close(self) -> None:
        """Remove whatever is left behind."""


class FileTransport:
    """Backend `cpu_file`: a safetensors file in memory on the node (or in a folder that all nodes share).

    The file of the live version is kept for engines that are replaced. `folder` is made here and is the run's own.
    """

    def __init__(self, learner: LearnerGroup, rollouts: RolloutPool, folder: Path) -> None:
        self._learner, self._rollouts, self._folder = learner, rollouts, folder
        self._live: Path | None = None
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise _unusable(folder.parent, error.strerror) from error

    async def connect(self) -> None:
        """Tell the engines that files will come."""
        await self._rollouts.connect([{} for _ in range(self._rollouts.num_engines)])

    async def send(self, version: int) -> None:
        """Write, load everywhere; then the file of the version before goes."""
        path = self._folder / f"version-{version:06d}.safetensors"
        await self._learner.write_weights(path, version)
        await self._rollouts.load_weights(version, {"path": str(path)})
        if self._live is not None and self._live != path:
            self._live.unlink(missing_ok=True)
        self._live = path

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


def check_usable(config: TrainConfig) -> None:
    """Raise RunFolderError when `weights.folder`, seen from here, cannot take the files of `cpu_file`."""
    folder = Path(config.weights.folder)
    if config.weights.backend == "cpu_file":
        if not folder.is_dir():
            raise _unusable(folder, "no such folder")
        if reason := why_not_creatable(folder):
            raise _unusable(folder, reason)


def _unusable(folder: Path, reason: str | None) -> RunFolderError:
    return RunFolderError(
        f"weights.folder {folder}: {reason}; new weights pass through it, so it must be a writable folder; name "
        "another one"
    )


class NcclTransport:
    """Backend `nccl`: the learner's rank 0 broadcasts to every engine worker, GPU to GPU.

    Engines cannot join the group later, so an engine that dies ends the attempt, which starts again from the last
    checkpoint with a new group.
    """

    def __init__(self, learner: LearnerGroup, rollouts: RolloutPool) -> None:
        self._learner, self._rollouts = learner, rollouts
        self._update_info: dict[str, Any] = {}

    async def connect(self) -> None:
        """Both halves meet: each waits for the other."""
        init_infos, opening = await self._learner.open_transfer(self._rollouts.num_engines)
        await asyncio.gather(opening, self._rollouts.connect(init_infos))
        self._update_info = await self._learner.transfer_update_info()

    async def send(self, version: int) -> None:
        """Broadcast and receive at the same time."""
        receiving = self._rollouts.load_weights(version, self._update_info)
        await asyncio.gather(self._learner.send_weights(), receiving)

    def close(self) -> None:
        """The group ends with its processes."""


def build_transport(
    config: TrainConfig, learner: LearnerGroup, rollouts: RolloutPool, weights_folder: Path
) -> WeightTransport:
    """The transport of `weights.backend`."""
    if config.weights.backend == "nccl":
        return NcclTransport(learner, rollouts)
    return FileTransport(learner, rollouts, weights_folder)
