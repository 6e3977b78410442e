"""The stages of a recipe by what they left: trainings by records, merges by hashes, evaluations by answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import xxhash

from tinyr1v_ray.errors import TinyR1VError
from tinyr1v_ray.evaluation.benchmarks.stored import SCORES
from tinyr1v_ray.evaluation.reading import UNREADABLE, read_object, reason
from tinyr1v_ray.files.safetensors_file import TensorRef, read_header
from tinyr1v_ray.merging.report import REPORT
from tinyr1v_ray.report.evaluations import read_evaluation
from tinyr1v_ray.report.recipe import DONE, INDEX, read_recipe
from tinyr1v_ray.verify.records import agree, broken
from tinyr1v_ray.verify.training import verify_training


def verify_run(folder: Path) -> Iterator[str]:
    """What was checked of a training, or stage by stage of a recipe, in a line each.

    Raises the errors of `verify_training`; those of a recipe begin with the stage.
    """
    if not (folder / INDEX).is_file():
        yield f"{folder}: {verify_training(folder)}"
        return
    for stage in read_recipe(folder).stages:
        if stage.state == DONE:
            yield f"{stage.id}: {_verify_stage(stage.id, _KINDS[stage.kind], folder / stage.folder)}"
        else:
            yield f"{stage.id}: {stage.state}, not checked"


def _verify_stage(name: str, verify: Callable[[Path], str], folder: Path) -> str:
    try:
        return verify(folder)
    except TinyR1VError as error:
        raise type(error)(f"{name}: {error}") from error
    except UNREADABLE as error:
        raise broken(f"{name}: {folder} cannot be read ({reason(error)})", "a finished stage is whole") from error


def _verify_merge(folder: Path) -> str:
    """Every stored tensor of every model against the hash that its merge noted."""
    reports = sorted(folder.glob(f"*/{REPORT}"))
    num_tensors = 0
    for path in reports:
        records = {row["stored_name"]: row["xxh3_128"] for row in read_object(path)["tensors"]}
        stored = _tensors(path.parent)
        for tensor, digest in records.items():
            if tensor not in stored or _digest(stored[tensor]) != digest:
                seen = "has other bytes than" if tensor in stored else "is missing beside"
                raise broken(f"{tensor} of {path.parent.name} {seen} {path.name}", "a merge hashes what it writes")
        num_tensors += len(records)
    if not reports:
        raise broken(f"{folder} holds no {REPORT}", "a finished merge has one for each model")
    return f"{num_tensors} tensors of {len(reports)} models have the bytes that were merged"


def _tensors(folder: Path) -> Mapping[str, TensorRef]:
    return {name: ref for path in sorted(folder.glob("*.safetensors")) for name, ref in read_header(path).items()}


def _digest(tensor: TensorRef) -> str:
    with Path(tensor.path).open("rb") as file:
        file.seek(tensor.offset)
        return xxhash.xxh3_128_hexdigest(file.read(tensor.nbytes))


def _verify_evaluation(folder: Path) -> str:
    """An answer to every item, and the scores that the answers give."""
    found, lost = read_evaluation(folder)
    if lost:
        raise broken(f"{folder.name}: {lost[0]}", "every item has an answer")
    scores = read_object(folder / SCORES)["benchmarks"]
    for name, answered in found.items():
        if not agree(scores[name]["score"], answered.score):
            raise broken(
                f"{SCORES} has score {scores[name]['score']} of {name} where its answers give {answered.score:g}",
                "scores follow from answers",
            )
    num_answers = sum(len(answered.answers) for answered in found.values())
    return f"{num_answers} answers to {len(found)} benchmarks give the scores"


_KINDS: Mapping[str, Callable[[Path], str]] = {
    "train": verify_training,
    "merge": _verify_merge,
    "evaluate": _verify_evaluation,
}
