"""The miniature's data as parquet files, made from a seed, once.

Columns: prompt_id, image (PNG bytes), question, answer, difficulty, need (steps of reasoning that the answer rests on),
domain; the warm-up pool also has `response`, an answer in one of the four styles. Nothing here imports torch or
transformers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets

from tinyr1v_ray.errors import DataError
from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.drawing import to_png
from tinyr1v_ray.miniature.tasks.item import Item, Style
from tinyr1v_ray.miniature.tasks.pools import NUM_ITEMS, Domain, Pool, named

DATA_VERSION = 4
"""Raised whenever the same seed gives other items, so that a cache of an older release is not taken for this one."""

DATA_SEED = 0


def data_rows(domain: Domain, pool: Pool, count: int, seed: int) -> Iterator[dict[str, object]]:
    """Rows of a data file, in order."""
    for number, item in enumerate(items(domain, pool, count, seed)):
        row: dict[str, object] = {
            "prompt_id": f"{domain}-{pool}-{number:05d}",
            "image": {"bytes": to_png(item.image), "path": None},
            "question": item.question,
            "answer": item.answer,
            "difficulty": item.difficulty,
            "need": item.need,
            "domain": str(domain),
        }
        if pool is Pool.WARMUP:
            row["response"] = _warmup_response(item, number)
        yield row


def _warmup_response(item: Item, number: int) -> str:
    styles = list(Style)
    return item.response(styles[number % len(styles)])


def write_data_file(path: Path, domain: Domain, pool: Pool, seed: int, count: int | None = None) -> None:
    """Write one parquet file atomically: a temporary name in the same folder, then a rename."""
    features = {
        "prompt_id": datasets.Value("string"),
        "image": datasets.Image(),
        "question": datasets.Value("string"),
        "answer": datasets.Value("string"),
        "difficulty": datasets.Value("int64"),
        "need": datasets.Value("int64"),
        "domain": datasets.Value("string"),
    }
    if pool is Pool.WARMUP:
        features["response"] = datasets.Value("string")
    rows = list(data_rows(domain, pool, NUM_ITEMS[pool] if count is None else count, seed))
    columns = {name: [row[name] for row in rows] for name in features}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        with _silent_datasets():
            table.to_parquet(temporary)
        Path(temporary).chmod(0o644)
        Path(temporary).rename(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def _silent_datasets() -> Iterator[None]:
    """Keep the library's own progress bars out of this package's."""
    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def ensure_data(cache_dir: Path, domain: str, split: str) -> Path:
    """The parquet file of a domain (ocr, math, structure) and split (warmup, train, evaluation), made if missing.

    Takes about two seconds the first time. Several processes may call it at once: each writes its own temporary file
    with the same bytes, and the last rename stays. Raises DataError for an unknown name and for a cache
    that cannot be used.
    """
    chosen_domain, chosen_pool = named(Domain, domain, "domain"), named(Pool, split, "split")
    path = cache_dir / f"v{DATA_VERSION}-seed{DATA_SEED}" / chosen_domain / f"{chosen_pool}.parquet"
    try:
        if not path.exists():
            write_data_file(path, chosen_domain, chosen_pool, DATA_SEED)
    except OSError as error:
        raise DataError(
            f"data of the miniature cannot be kept at {path}: {error.strerror or error}; it is drawn once, into the "
            "cache; make the folder writable, or set XDG_CACHE_HOME to one that is"
        ) from error
    return path
