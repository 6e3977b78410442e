"""Where items come from. `datasets` loads everything, so that a source is an Arrow table on disk, never in memory.

A source is written as
- `miniature:DOMAIN` or `miniature:DOMAIN:POOL`: the embedded data (pool: train or evaluation, after the purpose);
- a `.parquet` or `.jsonl` file, or a folder of parquet files;
- a folder of images with a `metadata.jsonl` (or another table of `datasets`), whose `file_name` is the image;
- `owner/name`, `owner/name:split`: a data set of the Hugging Face hub (split `train` unless given).
What exists on disk is taken before what looks like a hub name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pyarrow
from datasets import (
    Dataset,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    load_dataset,
    logging,
)
from datasets.exceptions import DatasetsError
from pyarrow.parquet import read_metadata

from tinyr1v_ray.data.rows import Rows, keep_json_lines
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool, named

_HUB_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:(?P<split>[\w.\[\]:%+-]+))?")
_FILE_ENDINGS = (".parquet", ".jsonl")
_METADATA = "metadata.jsonl"
_DATASETS_ERRORS = (DatasetsError, pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError, RuntimeError)
"""What `datasets` and the readers under it raise on missing or malformed data."""


class SourceKind(StrEnum):
    """How a source is loaded."""

    MINIATURE = "miniature"
    FILE = "file"
    PARQUET_FOLDER = "parquet folder"
    IMAGE_FOLDER = "image folder"
    HUB = "hub"


@dataclass(frozen=True)
class SourceName:
    """A source as written, understood.

    >>> parse_source("lmms-lab/textvqa:validation", "train")
    SourceName(kind=<SourceKind.HUB: 'hub'>, location='lmms-lab/textvqa', split='validation')
    >>> parse_source("miniature:ocr", "evaluation").split
    'evaluation'
    """

    kind: SourceKind
    location: str
    split: str


@dataclass(frozen=True, eq=False)
class Source:
    """A loaded source; `base_folder` is what relative image paths in it refer to.

    `dataset` is in Arrow format: images stay the bytes or paths that they are stored as. Where there are `json_keys`,
    its rows are lines, each a JSON object with some of these keys.
    """

    name: str
    dataset: Dataset
    base_folder: Path
    json_keys: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What the rows may have."""
        return self.json_keys or tuple(self.dataset.column_names)

    def rows(self, columns: Sequence[str]) -> Rows:
        """Reads the named columns."""
        return Rows(self.dataset, columns, is_json=bool(self.json_keys))


def parse_source(text: str, purpose: str) -> SourceName:
    """Understand a source; `purpose` (train, evaluation) is the miniature's default pool. Raises DataError."""
    if text.startswith("miniature:"):
        domain, _, pool = text.removeprefix("miniature:").partition(":")
        return SourceName(SourceKind.MINIATURE, domain, pool or purpose)
    path = Path(text).expanduser()
    if text and path.is_dir():
        has_parquet = any(path.glob("*.parquet"))
        return SourceName(SourceKind.PARQUET_FOLDER if has_parquet else SourceKind.IMAGE_FOLDER, str(path), "train")
    if path.is_file() or path.suffix in _FILE_ENDINGS:
        return SourceName(SourceKind.FILE, str(path), "train")
    if hub_name := _HUB_NAME.fullmatch(text):
        return SourceName(SourceKind.HUB, hub_name["name"], hub_name["split"] or "train")
    raise DataError(
        f"data source {text!r} is no file or folder; a source is a .parquet or .jsonl file, a folder, a hub name "
        "owner/name:split or miniature:DOMAIN; correct data.train or data.evaluation"
    )


def check_source(text: str, purpose: str) -> None:
    """Raise DataError for what can be told of a source without loading it: its form, the names of the miniature, and
    files that are missing, empty or of another kind."""
    name = parse_source(text, purpose)
    if name.kind is SourceKind.MINIATURE:
        named(Domain, name.location, "domain")
        named(Pool, name.split, "split")
    if name.kind is SourceKind.FILE:
        _check_file(Path(name.location))


def load_source(text: str, purpose: str, cache_folder: Path) -> Source:
    """Load a source; raises DataError when it is missing, empty or malformed."""
    name = parse_source(text, purpose)
    if name.kind is SourceKind.MINIATURE:
        path = _ensure_miniature(name, cache_folder / "miniature")
        name = SourceName(SourceKind.FILE, str(path), "train")
    if name.kind is SourceKind.FILE:
        _check_file(Path(name.location))
    try:
        with _quiet_datasets():
            dataset = _load(name, str(cache_folder / "datasets")).with_format("arrow")
        dataset, keys = keep_json_lines(dataset) if _json_file(name) else (dataset, ())
    except (DataError, *_DATASETS_ERRORS) as error:
        hint = " (no such file or folder here, so taken for a hub name)" if name.kind is SourceKind.HUB else ""
        raise DataError(f"data source {text}{hint} cannot be loaded: {_why(error)}") from error
    if len(dataset) == 0:
        raise _no_items(f"data source {text}")
    folder = Path(name.location) if Path(name.location).is_dir() else Path(name.location).parent
    return Source(text, dataset, folder.absolute(), keys)


def _why(error: Exception) -> str:
    """Reason, rule and remedy of a source that does not load."""
    cause = error.__cause__ or error
    if isinstance(error, DataError):
        return str(error)
    if isinstance(cause, UnicodeDecodeError):
        return f"it is not UTF-8 ({cause.reason} at byte {cause.start}); texts are UTF-8; convert it, such as by iconv"
    return f"{' '.join(str(cause).split())[:300]}; it must be a table; repair or rename it"


def _json_file(name: SourceName) -> Path | None:
    """The file of JSON lines that a source is."""
    path = Path(name.location)
    if name.kind is SourceKind.FILE and path.suffix == ".jsonl":
        return path
    return path / _METADATA if name.kind is SourceKind.IMAGE_FOLDER and (path / _METADATA).is_file() else None


def _ensure_miniature(name: SourceName, cache_folder: Path) -> Path:
    # Imported on use: drawing needs scikit-learn and the tables, which runs on other data never load.
    from tinyr1v_ray.miniature.build import ensure_data

    return ensure_data(cache_folder, name.location, name.split)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"data file {path} does not exist; sources are files that exist; correct the path")
    if path.suffix not in _FILE_ENDINGS:
        raise DataError(f"data file {path} ends in {path.suffix!r}; .parquet and .jsonl are read; convert it")
    try:
        # Asked of the file itself, since `datasets` cannot read a table without rows.
        is_empty = path.stat().st_size == 0 or (path.suffix == ".parquet" and read_metadata(path).num_rows == 0)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"data file {path} cannot be loaded: {reason}; it must be a table; repair it") from error
    if is_empty:
        raise _no_items(f"data file {path}")


def _no_items(what: str) -> DataError:
    return DataError(f"{what} is empty; a source holds at least one item; fill or remove it")


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Keep the library's own progress bars and logged errors out of this package's, which say the same."""
    had_no_bars, verbosity = are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if not had_no_bars:
            enable_progress_bars()


def _load(name: SourceName, cache_folder: str) -> Dataset:
    if (lines := _json_file(name)) is not None:
        return load_dataset("text", data_files=str(lines), split="train", cache_dir=cache_folder, encoding="utf-8-sig")
    match name.kind:
        case SourceKind.FILE:
            return load_dataset("parquet", data_files=name.location, split="train", cache_dir=cache_folder)
        case SourceKind.PARQUET_FOLDER:
            files = sorted(str(path) for path in Path(name.location).glob("*.parquet"))
            return load_dataset("parquet", data_files=files, split="train", cache_dir=cache_folder)
        case SourceKind.IMAGE_FOLDER:
            return load_dataset(
                "imagefolder", data_dir=name.location, split="train", cache_dir=cache_folder, drop_labels=True
            )
        case _:
            return load_dataset(name.location, split=name.split, cache_dir=cache_folder)
