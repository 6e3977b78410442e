"""A tiny base, experts of it, and a merge of them in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import Merge, write_expert, write_tiny_model

from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.merging.local_run import local_runner
from tinyr1v_ray.merging.session import MergeSummary, Silent, prepare_merge, run_merge


@pytest.fixture(scope="session")
def tied_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tied") / "base", tied=True)


@pytest.fixture(scope="session")
def untied_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("untied") / "base", tied=False)


@pytest.fixture(scope="session")
def experts(tied_base: Path) -> list[Path]:
    """Three experts of the tied base."""
    return [write_expert(tied_base, tied_base.parent / f"expert_{i}", seed=i) for i in range(3)]


@pytest.fixture
def merge_here(tied_base: Path, experts: list[Path], tmp_path: Path) -> Merge:
    """Merge the tiny experts in this process; keywords are settings, `base` and `experts` folders included."""

    def merge(**settings: object) -> MergeSummary:
        threads = int(settings.pop("num_threads", 1))  # type: ignore[call-overload]
        tree = {
            "base": str(tied_base),
            "experts": [str(path) for path in experts],
            "output": str(tmp_path / "merged"),
            **settings,
        }
        config = MergeConfig.model_validate(tree)
        prepared = prepare_merge(config, Path(config.base))
        return run_merge(prepared, local_runner(threads, 4 << 30), Silent())

    return merge
