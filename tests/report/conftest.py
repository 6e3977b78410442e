"""The folder of a whole recipe, made once for all tests of the report, which leave it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_cases import write_recipe


@pytest.fixture(scope="session")
def recipe_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe") / "run")
