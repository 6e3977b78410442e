"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["extract", "format", "math_answer", "ocr", "structured"])
def test_examples(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"tinyr1v_ray.rewards.{name}"))
    assert results.attempted > 0 and results.failed == 0
