"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest

from tinyr1v_ray.data import sources


def test_examples() -> None:
    results = doctest.testmod(sources)
    assert results.attempted > 0 and results.failed == 0
