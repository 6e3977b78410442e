from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import learner_cases
import learner_ranks
import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model with everything a run needs; tests only read it (and add images)."""
    folder = tmp_path_factory.mktemp("base")
    learner_cases.write_model_folder(folder)
    return folder


@pytest.fixture(scope="session")
def ranks(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What the scenarios left behind, by number of ranks. All run side by side: much of the time is that of imports."""
    scenarios = {1: learner_ranks.ONE_RANK, 2: learner_ranks.TWO_RANKS, 3: learner_ranks.THREE_RANKS}
    with ThreadPoolExecutor() as threads:
        runs = {
            num_ranks: threads.submit(
                learner_ranks.run_ranks, model_folder, tmp_path_factory.mktemp(f"ranks-{num_ranks}"), num_ranks, rows
            )
            for num_ranks, rows in scenarios.items()
        }
        return {num_ranks: run.result() for num_ranks, run in runs.items()}


@pytest.fixture(scope="session")
def one_rank(ranks: dict[int, Path]) -> Path:
    return ranks[1]


@pytest.fixture(scope="session")
def two_ranks(ranks: dict[int, Path]) -> Path:
    return ranks[2]
