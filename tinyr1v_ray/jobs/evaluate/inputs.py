"""What an evaluation reads: the model's processor, and every item of every benchmark as a prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinyr1v_ray.config.data import DataSettings
from tinyr1v_ray.config.evaluate import EvaluateConfig
from tinyr1v_ray.config.folders import default_cache_folder
from tinyr1v_ray.data.images import inspect_image, store_image
from tinyr1v_ray.data.items import ItemReader
from tinyr1v_ray.data.model_folder import resolve_model_folder
from tinyr1v_ray.data.processor import PromptProcessor, load_processor
from tinyr1v_ray.data.sources import load_source
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.load import find_file, load_items
from tinyr1v_ray.evaluation.benchmarks.registry import MINIATURE, find_benchmarks
from tinyr1v_ray.evaluation.benchmarks.stored import StoredItem
from tinyr1v_ray.types import ImageRef, Prompt


@dataclass(frozen=True)
class EvaluationInputs:
    """Items by benchmark, and the prompts of those that can be asked, by benchmark and index."""

    model_folder: Path
    items: Mapping[str, tuple[StoredItem, ...]]
    prompts: Mapping[str, Mapping[str, Prompt]]
    stop_ids: tuple[int, ...]

    @property
    def max_images(self) -> int:
        """Largest number of images in a prompt, at least 1."""
        return (
            max((len(prompt.images) for prompts in self.prompts.values() for prompt in prompts.values()), default=1)
            or 1
        )


def named_benchmarks(config: EvaluateConfig) -> list[Benchmark]:
    """The benchmarks that a configuration names, each once; raises ConfigError for an unknown one."""
    return find_benchmarks(config.benchmarks, config.user)


def image_folder(output: Path) -> Path:
    """The image store beside the evaluation's folder; runs in the same folder share it."""
    return output.parent / ".images"


def load_evaluation(config: EvaluateConfig, benchmarks: Sequence[Benchmark], output: Path) -> EvaluationInputs:
    """Read and check everything; raises ModelError, DataError and ConfigError.

    An item that cannot be asked (unreadable image, prompt too long, image marks without images) or has no key is kept
    with its reason and no prompt.
    """
    model_folder = resolve_model_folder(config.model.path, config.model.family)
    processor = load_processor(model_folder, config.model)
    items: dict[str, tuple[StoredItem, ...]] = {}
    prompts: dict[str, dict[str, Prompt]] = {}
    for benchmark in benchmarks:
        asker = _Asker(config, benchmark, processor, image_folder(output))
        rows = [
            asker.ask(item) for item in _limited(_items(config, benchmark, image_folder(output)), benchmark, config)
        ]
        if not processor.reads_images and any(stored.item.images for stored, _ in rows):
            raise DataError(
                f"benchmark {benchmark.name} shows images and {model_folder} is a {processor.family.name}, which reads "
                "text alone; a model is asked what it can read; leave the benchmark out or name another model"
            )
        items[benchmark.name] = tuple(stored for stored, _ in rows)
        prompts[benchmark.name] = {stored.item.index: prompt for stored, prompt in rows if prompt is not None}
    return EvaluationInputs(model_folder, items, prompts, processor.eos_token_ids)


def _items(config: EvaluateConfig, benchmark: Benchmark, folder: Path) -> list[BenchmarkItem]:
    if benchmark.name.startswith(MINIATURE):
        return _miniature_items(benchmark.name, folder, config.max_image_megapixels)
    path = find_file(benchmark, Path(config.data))
    return load_items(benchmark, path, folder, config.max_image_megapixels)


def _miniature_items(name: str, folder: Path, max_megapixels: float) -> list[BenchmarkItem]:
    """The evaluation pool of one of the embedded domains, by the steps of reasoning that an item needs."""
    reader = ItemReader(DataSettings(difficulty_column="need"), load_source(name, "evaluation", default_cache_folder()))
    items = []
    for number, (text, contents) in enumerate(reader):
        if isinstance(contents, DataError):
            raise contents
        images = tuple(inspect_image(content, max_megapixels) for content in contents)
        for content, facts in zip(contents, images, strict=True):
            store_image(folder, content, facts)
        index = text.item_id or str(number)
        items.append(BenchmarkItem(index, text.question, text.answer, category=text.difficulty, images=images))
    return items


def _limited(items: list[BenchmarkItem], benchmark: Benchmark, config: EvaluateConfig) -> list[BenchmarkItem]:
    """Evenly spaced groups with about `num_items` items in all; everything where the limit is 0 or not reached."""
    if not config.num_items or config.num_items >= len(items):
        return items
    groups: dict[str, list[BenchmarkItem]] = {}
    for item in items:
        groups.setdefault(benchmark.group(item), []).append(item)
    rows = list(groups.values())
    wanted = math.ceil(config.num_items * len(rows) / len(items))
    return [item for place in range(wanted) for item in rows[place * len(rows) // wanted]]


class _Asker:
    """Turns items into prompts."""

    def __init__(self, config: EvaluateConfig, benchmark: Benchmark, processor: PromptProcessor, images: Path) -> None:
        self._config, self._benchmark, self._processor, self._images = config, benchmark, processor, images

    def ask(self, item: BenchmarkItem) -> tuple[StoredItem, Prompt | None]:
        """The item with the words it is asked in, and its prompt unless it cannot be asked."""
        question = self._config.question_template.replace("{question}", self._benchmark.prompt(item))
        if item.failure:
            return StoredItem(item, question), None
        try:
            prompt = self._prompt(item, question)
        except DataError as error:
            return StoredItem(replace(item, failure=str(error).partition(";")[0]), question), None
        return StoredItem(item, question), prompt

    def _prompt(self, item: BenchmarkItem, question: str) -> Prompt:
        images = tuple(
            ImageRef(
                str(self._images / facts.file_name),
                facts.sha256,
                facts.num_bytes,
                facts.width_px,
                facts.height_px,
                self._processor.num_image_tokens(facts.width_px, facts.height_px),
            )
            for facts in item.images
        )
        rendered = self._processor.render(question, len(images), self._config.system_prompt)
        token_ids = self._processor.encode(rendered, len(images))
        name = f"{self._benchmark.name}/{item.index}"
        prompt = Prompt(name, self._benchmark.name, question, item.answer, token_ids, images, item.category)
        room = self._config.model.max_length - self._config.sampling.max_tokens
        if prompt.num_expanded_tokens > room:
            raise DataError(
                f"prompt is longer than {room} tokens; with the longest answer it must fit model.max_length; lower "
                "model.max_pixels or sampling.max_tokens"
            )
        return prompt
