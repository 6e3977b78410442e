from pathlib import Path

import learner_cases
import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model with everything a run needs; tests only read it (and add images)."""
    folder = tmp_path_factory.mktemp("base")
    learner_cases.write_model_folder(folder)
    return folder
