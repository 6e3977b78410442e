"""Weight transport `cpu_file`: a safetensors file in memory on the node, or in a folder that all nodes share."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tinyr1v_ray.config.folders import why_not_creatable
from tinyr1v_ray.config.weights import WeightSettings
from tinyr1v_ray.errors import PlacementError, RunFolderError
from tinyr1v_ray.learner.rank import PublishedWeights
from tinyr1v_ray.rollout.engine import WeightSource, WeightUpdate
from tinyr1v_ray.weight_sync.transport import Edge, WeightTransport


@dataclass(frozen=True)
class FileSource(WeightSource):
    """Nothing needs to be agreed on beforehand."""


@dataclass(frozen=True)
class FileUpdate(WeightUpdate):
    """`path` of a safetensors file with every weight of the model, under the names of its checkpoint."""

    path: str


@dataclass(frozen=True)
class WriteFile:
    """The learner's half: all weights into a file, the version in its metadata."""

    path: Path
    version: int

    def __call__(self, weights: PublishedWeights) -> None:
        weights.write(self.path, {"format": "pt", "version": str(self.version)})


class FileTransport(WeightTransport):
    """The file of the live version is kept for engines that are replaced. The files' folder is the run's own."""

    def __init__(self, edge: Edge) -> None:
        super().__init__(edge)
        self._folder = Path(edge.settings.folder) / edge.run_label
        self._live: Path | None = None
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(mode=0o700)
        except OSError as error:
            raise _unusable(self._folder.parent, error.strerror) from error

    @staticmethod
    def check_usable(settings: WeightSettings) -> None:
        """Raise RunFolderError when `weights.folder`, seen from here, cannot take the files."""
        folder = Path(settings.folder)
        if not folder.is_dir():
            raise _unusable(folder, "no such folder")
        if reason := why_not_creatable(folder):
            raise _unusable(folder, reason)

    @staticmethod
    def check_reach(settings: WeightSettings, num_nodes: int) -> None:
        """Raise PlacementError when new weights would pass through the memory of one node of several."""
        if num_nodes > 1 and _is_memory(settings):
            raise PlacementError(
                f"weights.folder {settings.folder} is the memory of one node, the cluster has {num_nodes}; engines on "
                "other nodes could not read it; set weights.folder to a folder that all nodes share"
            )

    @staticmethod
    def memory_bytes(settings: WeightSettings, weights_bytes: float) -> float:
        """Two versions, the live one and the next, where the folder is memory."""
        return 2 * weights_bytes if _is_memory(settings) else 0.0

    async def connect(self) -> None:
        """Tell the engines that files will come."""
        sources = [FileSource() for _ in range(self._edge.engines.num_engines)]
        await self._edge.engines.connect(sources, self._edge.settings.timeout_s)

    async def send(self, version: int) -> None:
        """Write, load everywhere; then the file of the version before goes."""
        path = self._folder / f"version-{version:06d}.safetensors"
        await self._edge.on_all_ranks(WriteFile(path, version))
        await self._edge.load_weights(version, FileUpdate(str(path)))
        if self._live is not None and self._live != path:
            self._live.unlink(missing_ok=True)
        self._live = path

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_memory(settings: WeightSettings) -> bool:
    return settings.folder.startswith("/dev/shm")


def _unusable(folder: Path, reason: str | None) -> RunFolderError:
    return RunFolderError(
        f"weights.folder {folder}: {reason}; new weights pass through it, so it must be a writable folder; name "
        "another one"
    )
