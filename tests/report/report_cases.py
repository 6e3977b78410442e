"""A small recipe's folder, written by the package's own writers, with answers whose metrics are known beforehand."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tinyr1v_ray.config.base import parse_settings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.merge import MethodConfig
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.images import ImageFacts, inspect_image, store_image
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.registry import find_benchmark
from tinyr1v_ray.evaluation.benchmarks.scores import answering_speed, average_score, benchmark_scores
from tinyr1v_ray.evaluation.benchmarks.stored import (
    StoredAnswer,
    StoredItem,
    benchmark_folder,
    write_answers,
    write_items,
)
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import to_json
from tinyr1v_ray.jobs.evaluate.folder import open_output
from tinyr1v_ray.merging.records import TensorRecord
from tinyr1v_ray.merging.report import make_report
from tinyr1v_ray.merging.report import write_report as write_merge_report
from tinyr1v_ray.telemetry.metrics import step_metrics
from tinyr1v_ray.telemetry.run_folder import create_run_folder
from tinyr1v_ray.telemetry.samples import SampleSink
from tinyr1v_ray.telemetry.sinks import JsonlSink
from tinyr1v_ray.types import (
    Completion,
    Finish,
    ImageRef,
    LearnerUpdate,
    Prompt,
    RolloutGroup,
    Score,
    ScoredGroup,
    StepAdvantages,
)

NUM_ITEMS = 20
BENCHMARKS = ("miniature:math", "miniature:structure", "miniature:ocr")
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"></pre>"


@dataclass(frozen=True)
class Case:
    """A model of the folder: items right of NUM_ITEMS by benchmark (one more with seed 1), and tokens per answer."""

    name: str
    role: str
    algorithm: str
    domains: tuple[str, ...]
    boost: float | None
    right: tuple[int, int, int]
    tokens: int


ALL = ("math", "structure", "ocr")
CASES = (
    Case("base", "base", "", (), None, (6, 6, 8), 50),
    Case("math", "specialist", "lipo", ("math",), 0.5, (12, 6, 8), 24),
    Case("structure", "specialist", "lipo", ("structure",), 0.5, (6, 11, 8), 26),
    Case("ocr", "specialist", "lipo", ("ocr",), 0.5, (6, 6, 16), 20),
    Case("math_grpo", "baseline", "grpo", ("math",), None, (12, 6, 8), 47),
    Case("math_dapo", "baseline", "dapo", ("math",), None, (11, 6, 8), 45),
    Case("math_boost_0.1", "baseline", "lipo", ("math",), 0.1, (13, 6, 8), 36),
    Case("math_boost_1", "baseline", "lipo", ("math",), 1.0, (9, 6, 8), 15),
    Case("mixture", "baseline", "lipo", ALL, 0.5, (9, 9, 13), 30),
    Case("sequential", "baseline", "lipo", ("ocr",), 0.5, (7, 8, 16), 22),
    Case("amm", "merged", "amm", (), None, (12, 10, 15), 25),
    Case("wudi", "merged", "wudi", (), None, (11, 10, 15), 25),
    Case("task_arithmetic", "merged", "task_arithmetic", (), None, (3, 2, 3), 45),
    Case("amm_no_projection", "merged", "amm", (), None, (12, 10, 14), 25),
)


def is_right(case: Case, benchmark: int, seed: int, item: int) -> bool:
    """Exactly `right` of the items, others for each model: 7 and NUM_ITEMS share no factor."""
    return (7 * item + len(case.name)) % NUM_ITEMS < case.right[benchmark] + seed


def tokens_of(case: Case, seed: int, item: int) -> int:
    """Around the case's tokens, larger where the item's number is."""
    return case.tokens + item % 5 + seed


def draw(text: str) -> bytes:
    """A small picture."""
    image = Image.new("RGB", (112, 56), "white")
    ImageDraw.Draw(image).text((8, 20), text, fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_recipe(run: Path, cases: Sequence[Case] = CASES, seeds: Sequence[int] = (0, 1)) -> Path:
    """The folder `runs/NAME` with every stage done."""
    stages, models = [], []
    for case in cases:
        for seed in seeds:
            entry: dict[str, Any] = {
                **{"name": case.name, "role": case.role, "algorithm": case.algorithm, "domains": list(case.domains)},
                **{
                    "boost": case.boost,
                    "seed": seed,
                    "start_from": "math" if case.name == "sequential" else "",
                    "folder": f"models/{case.name}-{seed}",
                    "train": None,
                    "merge": None,
                },
            }
            made = None
            if case.role in ("specialist", "baseline"):
                made = entry["train"] = f"stages/train-{case.name}-seed{seed}-0011aabb"
                write_training(run / made, case, seed)
                entry["folder"] = f"{made}/export"
            if case.role == "merged":
                made = f"stages/merge-all-seed{seed}-0011aabb"
                entry["folder"] = f"{made}/{case.name}"
                entry["merge"] = f"{made}/{case.name}/merge.json"
                write_merge(run, run / entry["folder"], case, seed)
            evaluation = entry["evaluation"] = f"stages/evaluate-{case.name}-seed{seed}-0011aabb"
            write_evaluation(run / evaluation, case, seed)
            models.append(entry)
            kinds = {"train": entry["train"], "merge": made if case.role == "merged" else None, "evaluate": evaluation}
            stages += [_stage(kind, case.name, seed, folder) for kind, folder in kinds.items() if folder]
    index = {
        **{"name": "recipe_of_the_tests", "started": "2026-11-22T08:00:00+00:00", "miniature": True},
        **{"stages": stages, "models": models},
    }
    replace_file(run / "recipe.json", to_json(index, indent=1))
    return run


def _stage(kind: str, name: str, seed: int, folder: str) -> dict[str, Any]:
    seconds = {"train": 81.0, "merge": 6.5, "evaluate": 20.0}[kind] + seed + len(name)
    return {
        **{"id": f"{kind}/{name}/seed{seed}", "kind": kind, "name": name, "seed": seed, "folder": folder},
        **{"fingerprint": "0011aabb", "needs": [], "state": "done", "seconds": seconds},
    }


def write_evaluation(folder: Path, case: Case, seed: int) -> None:
    """An evaluation's folder as `tinyr1v evaluate` leaves it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = parse_settings(EvaluateConfig, {"benchmarks": list(BENCHMARKS), "model": {"path": "miniature"}})
    open_output(config, folder, [find_benchmark(name, {}) for name in BENCHMARKS], folder)
    scores, everything = [], []
    for number, name in enumerate(BENCHMARKS):
        items, answers = _items(folder.parent / ".images", name), []
        for place, stored in enumerate(items):
            right = is_right(case, number, seed, place)
            text = f"<think>{place} is seen</think><answer>{place if right else place + 1}</answer>"
            if case.name == "math_dapo" and not right:
                text = HOSTILE
            answers.append(_answer(name, stored, text, right, tokens_of(case, seed, place)))
        write_items(benchmark_folder(folder, name), items)
        write_answers(benchmark_folder(folder, name), answers)
        scores.append(benchmark_scores(find_benchmark(name, {}), items, answers))
        everything += answers
    row = {"average": average_score(scores), "speed": asdict(answering_speed(everything))}
    replace_file(folder / "scores.json", to_json(row | {"benchmarks": {of.name: asdict(of) for of in scores}}))


def _items(images: Path, name: str) -> list[StoredItem]:
    items = []
    for place in range(NUM_ITEMS):
        content = draw(f"{name.partition(':')[2]} {place}")
        facts: ImageFacts = inspect_image(content, 1.0)
        store_image(images, content, facts)
        question = f"Which number is shown? ({place})"
        item = BenchmarkItem(f"{name}-{place}", question, str(place), category=str(1 + place % 4), images=(facts,))
        items.append(StoredItem(item, question))
    return items


def _answer(name: str, stored: StoredItem, text: str, right: bool, num_tokens: int) -> StoredAnswer:
    return StoredAnswer(
        *(name, stored.item.index, 0, text, num_tokens, "stop", 1000.0, 1001.5),
        difficulty=stored.item.category,
        reference=stored.item.answer,
        extracted=stored.item.answer if right else "",
        reward=float(right),
        correct=right,
    )


def write_training(folder: Path, case: Case, seed: int, num_steps: int = 6) -> None:
    """A train run's folder: configuration, metrics, groups and samples, by the writers that train runs use."""
    algorithm: dict[str, Any] = {"name": case.algorithm}
    if case.boost is not None:
        algorithm["lipo"] = {"boost": case.boost}
    tree = {
        "run": {"name": folder.name, "seed": seed, "num_steps": num_steps},
        "data": {"train": [f"miniature:{domain}" for domain in case.domains]},
        "algorithm": algorithm,
        "model": {"path": "miniature"},
    }
    create_run_folder(folder, parse_settings(TrainConfig, tree), ["tinyr1v", "run"])
    sinks = [JsonlSink(folder), SampleSink(folder / "samples", 2)]
    picture = folder / "picture.png"
    picture.write_bytes(draw(case.name))
    for step in range(1, num_steps + 1):
        groups = [_group(case, seed, step, number, num_steps, picture) for number in range(2)]
        advantages_PG = tuple(_advantages(case, group) for group in groups)
        update = LearnerUpdate(step, {"loss": 0.1 / step})
        seconds = {"generate": 2.0, "learn": 1.5, "weights": 0.25, "step": 4.0}
        metrics = step_metrics(step, update, groups, StepAdvantages(advantages_PG, advantages_PG), 0, seconds)
        for sink in sinks:
            sink.log(metrics, groups, advantages_PG)
    for sink in sinks:
        sink.close()


def _group(case: Case, seed: int, step: int, number: int, num_steps: int, picture: Path) -> ScoredGroup:
    start, end = 50, case.tokens
    length = round(start + (end - start) * step / num_steps) + seed
    lengths = (length, length + 4, length + 9, max(1, length - 5))
    completions = tuple(
        Completion(np.zeros(n, np.int32), np.zeros(n, np.float32), f"{n} tokens {HOSTILE}", Finish.STOP, step, step)
        for n in lengths
    )
    scores = tuple(Score(1.0 if place < 3 else 0.0, {"answer": 1.0}, place < 3) for place in range(4))
    content = picture.read_bytes()
    facts = inspect_image(content, 1.0)
    image = ImageRef(str(picture), facts.sha256, facts.num_bytes, facts.width_px, facts.height_px, 8)
    prompt = Prompt(f"p{step}-{number}", case.domains[0], "Which number is shown?", "7", (1,), (image,), "1")
    return ScoredGroup(RolloutGroup(prompt, completions), scores)


def _advantages(case: Case, group: ScoredGroup) -> np.ndarray:
    """Of the right answers LIPO prefers the shorter; the others treat them alike."""
    rewards_G = group.rewards_G.copy()
    if case.algorithm == "lipo":
        rewards_G = rewards_G * (1 - 0.001 * group.lengths_G)
    return (rewards_G - rewards_G.mean()) / (rewards_G.std() + 1e-6)


DELTAS = (
    {"name": "model.a", "norms": (3.0, 4.0, 2.0), "cosine": 0.1},
    {"name": "model.b", "norms": (4.0, 3.0, 1.0), "cosine": -0.02},
)


def write_merge(run: Path, folder: Path, case: Case, seed: int) -> None:
    """merge.json of three experts and two tensors."""
    records = []
    for index, delta in enumerate(DELTAS):
        cosines = tuple(tuple(1.0 if i == j else float(delta["cosine"]) for j in range(3)) for i in range(3))
        record = TensorRecord(
            *(
                index,
                case.name,
                str(delta["name"]),
                str(delta["name"]),
                "language.q",
                (2, 2),
                "merged",
                "amm",
                "",
                "00",
            ),
            delta_norms=tuple(delta["norms"]),
            delta_cosines=cosines,
        )
        records.append(record.as_json())
    experts = [str(run / f"stages/train-{name}-seed{seed}-0011aabb/export") for name in ALL]
    context = {"base": "miniature", "experts": experts, "donor": "miniature", "inputs": [], "conflicts": []}
    method = MethodConfig.model_validate({"name": case.algorithm})
    folder.mkdir(parents=True)
    write_merge_report(make_report(method, records, [], context), folder)


def read_answers_slowly(run: Path) -> Mapping[tuple[str, str], tuple[float, float]]:
    """Accuracy and tokens by model and benchmark, from the bytes of answers.jsonl alone."""
    index = json.loads((run / "recipe.json").read_text())
    sums: dict[tuple[str, str], list[list[float]]] = {}
    for model in index["models"]:
        for folder in sorted((run / model["evaluation"]).iterdir()):
            if not folder.is_dir():
                continue
            rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
            asked = len((folder / "items.jsonl").read_text().splitlines())
            right, tokens = sum(row["correct"] for row in rows) / asked, sum(row["num_tokens"] for row in rows) / asked
            sums.setdefault((model["name"], rows[0]["domain"]), []).append([right, tokens])
    return {
        key: (sum(r for r, _ in rows) / len(rows), sum(t for _, t in rows) / len(rows)) for key, rows in sums.items()
    }
