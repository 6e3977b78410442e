"""What tests change in a recipe's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.stored import (
    StoredAnswer,
    StoredItem,
    benchmark_folder,
    write_answers,
    write_items,
)

NESTED = "[" * 100_000
Damage = Callable[[Path], None]


def edit_index(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Another recipe.json."""
    index = json.loads((folder / "recipe.json").read_text())
    change(index)
    (folder / "recipe.json").write_text(json.dumps(index))


def set_state(folder: Path, state: str, *ids: str) -> None:
    """What became of some stages."""
    edit_index(folder, lambda index: [row.update(state=state) for row in index["stages"] if row["id"] in ids])


def keep_models(folder: Path, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    """The recipe lists no other models."""
    edit_index(folder, lambda index: index.update(models=[row for row in index["models"] if is_kept(row)]))


def rename_algorithms(folder: Path, **names: str) -> None:
    """Models of these names are by other algorithms or merge methods."""

    def change(index: dict[str, Any]) -> None:
        for row in index["models"]:
            row["algorithm"] = names.get(row["name"], row["algorithm"])

    edit_index(folder, change)


def add_mme(evaluation: Path, is_pairwise: bool) -> None:
    """Ten images with two questions each, half of all answers right: on five images both, or on each image one."""
    items, answers = [], []
    for place in range(20):
        image, question = divmod(place, 2)
        item = BenchmarkItem(
            str(place), "Is it? Yes or no?", "Yes", category="color", columns={"image_path": f"{image}.png"}
        )
        right = image < 5 if is_pairwise else question == 0
        items.append(StoredItem(item, item.question))
        answers.append(StoredAnswer("mme", item.index, 0, "Yes", 5, "stop", 1.0, 2.0, correct=right))
    write_items(benchmark_folder(evaluation, "mme"), items)
    write_answers(benchmark_folder(evaluation, "mme"), answers)
    record = json.loads((evaluation / "evaluation.json").read_text())
    record["benchmarks"].append("mme")
    (evaluation / "evaluation.json").write_text(json.dumps(record))


def keep_base_and_amm_with_mme(run: Path) -> None:
    """Two models that answered MME too, half right: the base by whole images, AMM one question of each."""
    keep_models(run, lambda row: row["name"] in ("base", "amm"))
    for name in ("base", "amm"):
        for seed in (0, 1):
            add_mme(run / f"stages/evaluate-{name}-seed{seed}-0011aabb", name == "base")


def text(name: str, content: str) -> Damage:
    """Another content of a file."""
    return lambda run: (run / name).write_text(content) and None


def json_file(name: str, change: Callable[[Any], Any]) -> Damage:
    """Another tree; Infinity stands as 1e999."""

    def damage(run: Path) -> None:
        tree = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(change(tree) or tree).replace("Infinity", "1e999"))

    return damage


def line(name: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Another third line."""

    def damage(run: Path) -> None:
        lines = (run / name).read_text().splitlines()
        row = json.loads(lines[2])
        lines[2] = json.dumps(change(row) or row).replace("Infinity", "1e999")
        (run / name).write_text("".join(f"{row}\n" for row in lines))

    return damage


def raw_line(name: str, content: str) -> Damage:
    """Another third line, as it is."""

    def damage(run: Path) -> None:
        lines = (run / name).read_text().splitlines()
        (run / name).write_text("".join(f"{row}\n" for row in [*lines[:2], content, *lines[3:]]))

    return damage


def repeated(name: str) -> Damage:
    """The content twice."""
    return lambda run: (run / name).write_text((run / name).read_text() + (run / name).read_text()) and None
