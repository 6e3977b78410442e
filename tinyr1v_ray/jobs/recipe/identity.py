"""What an input of a recipe is, by content: a model or data file that changed makes other results."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.data.model_folder import check_model_folder, find_model_folder
from tinyr1v_ray.data.sources import SourceKind, parse_source
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.benchmarks.load import find_file
from tinyr1v_ray.evaluation.benchmarks.registry import MINIATURE as MINIATURE_BENCHMARK
from tinyr1v_ray.files.hashing import file_sha256, value_sha256
from tinyr1v_ray.jobs.evaluate.inputs import named_benchmarks
from tinyr1v_ray.miniature.build import DATA_SEED, DATA_VERSION


def model_identity(path: str, own_family: str = "") -> str:
    """Of a base: its files' content; a hub name that is no local folder stands for itself.

    Raises ModelError for a folder that is no model, and for what can be neither.
    """
    folder = find_model_folder(path)
    if folder is None:
        return path
    check_model_folder(folder, own_family)
    return content(folder)


def source_identity(text: str) -> str:
    """Of a data source: the content of files and folders, the version of the miniature's, a hub name as it is.

    Images that a table names by path are not read for it: name their folder as the source, or rename the table, when
    they change. Raises DataError for what cannot be a source.
    """
    name = parse_source(text, "train")
    if name.kind is SourceKind.MINIATURE:
        return f"{text} version {DATA_VERSION} seed {DATA_SEED}"
    return text if name.kind is SourceKind.HUB else content(Path(name.location))


def benchmark_identity(settings: EvaluateConfig, name: str) -> str:
    """Of a benchmark under an evaluation's settings: the content of its file, or the version of the miniature's."""
    if name.startswith(MINIATURE_BENCHMARK):
        return source_identity(name)
    benchmark = next(each for each in named_benchmarks(settings) if each.name == name)
    return content(find_file(benchmark, Path(settings.data)))


@lru_cache(maxsize=256)
def content(path: Path) -> str:
    """Hash of a file, or of a folder's files and their names."""
    try:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            return value_sha256({file.relative_to(path).as_posix(): content(file) for file in files})
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); a recipe reads its inputs; correct it") from error
