"""Pools share no digit sample, no table row and no item; items of a file are distinct and drawn by number."""

from itertools import combinations

import numpy as np
import pytest

from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.digits import BLOCKS, indices_of
from tinyr1v_ray.miniature.tasks.item import Item
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool, item_rng
from tinyr1v_ray.miniature.tasks.tables import SOURCES, rows_of

NUM_ITEMS = 1000


@pytest.fixture(scope="module")
def drawn() -> dict[tuple[Domain, Pool], list[Item]]:
    return {(domain, pool): list(items(domain, pool, NUM_ITEMS, seed=0)) for domain in Domain for pool in Pool}


def _rows(item: Item) -> set[str]:
    """Digit samples and table rows: sources with a number. Column names of tables have none."""
    return {source for source in item.sources if "-" in source}


@pytest.mark.parametrize("domain", list(Domain))
def test_pools_share_no_source(drawn: dict[tuple[Domain, Pool], list[Item]], domain: Domain) -> None:
    sources = {pool: set().union(*map(_rows, drawn[domain, pool])) for pool in Pool}
    assert all(len(found) > 90 for found in sources.values())
    for first, second in combinations(Pool, 2):
        assert not sources[first] & sources[second]


def test_digit_blocks_cover_every_sample_once() -> None:
    used = [index for pool in Pool for digit in range(10) for index in indices_of(pool, digit)]
    assert sorted(used) == list(range(1797))
    assert sorted(BLOCKS.values()) == [BLOCKS[pool] for pool in (Pool.WARMUP, Pool.TRAIN, Pool.EVALUATION)]


def test_every_pool_has_rows_of_every_table() -> None:
    for name in SOURCES:
        counted = {}
        for pool in Pool:
            columns, groups = rows_of(name, pool)
            counted[pool] = {row.source for group in groups for row in group}
            assert all(len(row.values) == len(columns) for group in groups for row in group)
            assert all(0 <= value <= 99 for group in groups for row in group for value in row.values)
            assert all(len(row.label) <= 4 for group in groups for row in group)
        assert len(set().union(*counted.values())) == sum(map(len, counted.values()))


@pytest.mark.parametrize("domain", list(Domain))
@pytest.mark.parametrize("pool", list(Pool))
def test_items_of_a_file_are_distinct(drawn: dict[tuple[Domain, Pool], list[Item]], domain: Domain, pool: Pool) -> None:
    keys = {(item.sources, item.question) for item in drawn[domain, pool]}
    assert len(keys) == NUM_ITEMS
    assert len({item.difficulty for item in drawn[domain, pool]}) >= 4
    idle = sum(item.need == 0 for item in drawn[domain, pool])
    assert 0.1 * NUM_ITEMS <= idle <= 0.8 * NUM_ITEMS  # each domain has items of both kinds


def test_an_item_does_not_depend_on_how_many_are_drawn() -> None:
    few, many = (list(items(Domain.MATH, Pool.TRAIN, count, seed=3)) for count in (5, 50))
    for first, second in zip(few, many, strict=False):
        assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
        assert (first.question, first.answer) == (second.question, second.answer)


def test_seeds_domains_and_pools_have_different_streams() -> None:
    draws = {item_rng(seed, domain, pool, 0).integers(1 << 60) for seed in (0, 1) for domain in Domain for pool in Pool}
    assert len(draws) == 18
