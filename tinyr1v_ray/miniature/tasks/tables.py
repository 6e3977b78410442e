"""Slices of real tables, split between the pools by row.

All come with the vega_datasets package. Values are rounded to whole numbers of at most two digits, in the units named
below, so that a model of two million parameters can learn to read them; nothing else about them is changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from vega_datasets import local_data

from tinyr1v_ray.miniature.tasks.pools import Pool

MAKERS = ("ford", "chevrolet", "plymouth", "amc", "dodge", "toyota", "datsun", "buick", "pontiac", "volkswagen")
SITES = ("University Farm", "Waseca", "Morris", "Crookston", "Grand Rapids", "Duluth")
SPECIES = ("setosa", "versicolor", "virginica")
LABEL_CHARACTERS = 4


@dataclass(frozen=True)
class Slice:
    """A few labelled rows of one table: `values[row][column]` in 0..99; `sources` are the rows' own ids."""

    table: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """A table in long form: a row has a label, a group (rows of a slice share it) and whole-number columns."""

    name: str
    columns: tuple[str, ...]
    frame: pd.DataFrame


def _table(name: str, labels: pd.Series, groups: pd.Series, columns: dict[str, pd.Series]) -> _Table:
    """Round, keep rows whose values all lie in 0..99, and remember each row's number in the source."""
    frame = pd.DataFrame({"label": labels.astype(str).str.slice(0, LABEL_CHARACTERS), "group": groups, **columns})
    frame["source"] = [f"{name}-{number}" for number in range(len(frame))]
    frame = frame.dropna()
    for column in columns:
        frame[column] = frame[column].round().astype(int)
    inside = frame[list(columns)].apply(lambda values: values.between(0, 99)).all(axis=1)
    return _Table(name, tuple(columns), frame[inside].reset_index(drop=True))


def _weather() -> _Table:
    """Seattle's days: highest and lowest temperature in degrees Celsius, wind in m/s. Labels are months."""
    days = local_data.seattle_weather()
    months = days["date"].dt.strftime("%b")
    measures = {"max": days["temp_max"], "min": days["temp_min"], "wind": days["wind"]}
    return _table("weather", months, pd.Series(0, index=days.index), measures)


def _cars() -> _Table:
    """Cars of 1970-1982: miles per gallon, cylinders, seconds to 60 mph. Labels are makers."""
    cars = local_data.cars()
    makers = cars["Name"].str.split().str[0]
    makers = makers.where(makers.isin(MAKERS))
    measures = {"mpg": cars["Miles_per_Gallon"], "cyl": cars["Cylinders"], "sec": cars["Acceleration"]}
    return _table("cars", makers, pd.Series(0, index=cars.index), measures)


def _iris() -> _Table:
    """Iris flowers: length and width of sepal and petal in millimetres. Labels are species."""
    flowers = local_data.iris()
    measures = {"sepL": "sepalLength", "sepW": "sepalWidth", "petL": "petalLength", "petW": "petalWidth"}
    columns = {short: flowers[name] * 10 for short, name in measures.items()}
    return _table("iris", flowers["species"], pd.Series(0, index=flowers.index), columns)


def _barley() -> _Table:
    """Barley yields of 1931 and 1932 in bushels an acre, by site; a group is a variety."""
    yields = local_data.barley()
    wide = yields.pivot_table(index=["variety", "site"], columns="year", values="yield").reset_index()
    return _table("barley", wide["site"], wide["variety"], {"1931": wide[1931], "1932": wide[1932]})


def _stocks() -> _Table:
    """Monthly closing prices in tens of dollars, by company; a group is a month."""
    prices = local_data.stocks()
    return _table("stocks", prices["symbol"], prices["date"].astype(str), {"usd": prices["price"] / 10})


SOURCES: dict[str, Callable[[], _Table]] = {
    "weather": _weather,
    "cars": _cars,
    "iris": _iris,
    "barley": _barley,
    "stocks": _stocks,
}


@dataclass(frozen=True)
class _TableRow:
    label: str
    values: tuple[int, ...]
    source: str


@lru_cache(maxsize=32)
def rows_of(name: str, pool: Pool) -> tuple[tuple[str, ...], tuple[tuple[_TableRow, ...], ...]]:
    """Columns of a table and the pool's rows by group: half of them warm-up, a quarter RL, a quarter evaluation.

    Ungrouped tables are dealt out row by row, grouped ones group by group.
    """
    with warnings.catch_warnings():  # vega_datasets calls pandas in a way that pandas will drop
        warnings.simplefilter("ignore", DeprecationWarning)
        table = SOURCES[name]()
    frame = table.frame
    groups = frame["group"].unique()
    keys = np.arange(len(frame)) if len(groups) == 1 else frame["group"].map({g: k for k, g in enumerate(groups)})
    share = {Pool.WARMUP: (0, 1), Pool.TRAIN: (2,), Pool.EVALUATION: (3,)}[pool]
    mine = frame[np.isin(np.asarray(keys) % 4, share)]
    return table.columns, tuple(_rows(part, table.columns) for _, part in mine.groupby("group", sort=True))


def _rows(frame: pd.DataFrame, columns: tuple[str, ...]) -> tuple[_TableRow, ...]:
    values = frame[list(columns)].to_numpy().tolist()
    return tuple(map(_TableRow, frame["label"], map(tuple, values), frame["source"]))


def draw_slice(pool: Pool, rng: np.random.Generator, num_columns: int, max_rows: int) -> Slice:
    """Three to `max_rows` rows with different labels and up to `num_columns` columns of a random table."""
    name = list(SOURCES)[int(rng.integers(len(SOURCES)))]
    columns, groups = rows_of(name, pool)
    chosen = sorted(int(column) for column in rng.permutation(len(columns))[:num_columns])
    group = groups[int(rng.integers(len(groups)))]
    num_rows = int(rng.integers(3, max_rows + 1))
    rows: dict[str, _TableRow] = {}
    for place in rng.permutation(len(group)).tolist():
        rows.setdefault(group[place].label, group[place])
        if len(rows) == num_rows:
            break
    return Slice(
        table=name,
        row_labels=tuple(rows),
        column_labels=tuple(columns[column] for column in chosen),
        values=tuple(tuple(row.values[column] for column in chosen) for row in rows.values()),
        sources=tuple(row.source for row in rows.values()),
    )
