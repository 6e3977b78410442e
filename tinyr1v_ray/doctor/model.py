"""Whether a model can be trained, by its files alone: family, what is trained, what an image costs, and memory."""

from __future__ import annotations

from collections.abc import Iterator

from tinyr1v_ray.config.model import ModelSettings
from tinyr1v_ray.data.model_folder import check_model_folder, fetch_model_folder, find_model_folder, read_json
from tinyr1v_ray.data.processor import PromptProcessor
from tinyr1v_ray.models.registry import find_family
from tinyr1v_ray.models.shape import ModelShape, count_shape
from tinyr1v_ray.planning.units import count, size

_LEARNER_BYTES = 18
"""Of a trained parameter, bfloat16, one rank: weight 2, gradient 4, master weight 4, two moments 8."""


def describe_model(settings: ModelSettings, width_px: int, height_px: int) -> Iterator[str]:
    """What is to be known before a first run, a line each; seconds, since weights are counted and not read.

    Of a hub name only the files beside the weights are fetched. Raises ModelError for what cannot be trained.
    """
    folder = fetch_model_folder(settings.path, with_weights=False)
    if find_model_folder(settings.path) is not None:
        check_model_folder(folder, settings.family)
    config = read_json(folder / "config.json")
    family = find_family(config, settings.path, settings.family)
    shape = count_shape(settings.path, config, family)
    yield f"{settings.path} can be trained: {family.name}, {count(shape.num_parameters)} parameters"
    yield _trained(shape)
    processor = PromptProcessor(folder, settings)
    if family.image_token:
        tokens = len(family.image_tokens(processor.processor, width_px, height_px))
        limit = f"model.max_pixels={settings.max_pixels}"
        yield f"an image of {width_px}x{height_px} pixels costs {tokens} tokens ({limit})"
    else:
        yield "it reads text alone: data.image_column='' in every configuration"
    yield (
        f"memory in bfloat16: an engine {size(2 * shape.num_parameters)} and "
        f"{count(shape.kv_bytes_per_token(2))} bytes for each cached token, a lone learner rank "
        f"{size(_LEARNER_BYTES * shape.num_parameters)}, which ZeRO divides; tinyr1v plan adds the work"
    )


def _trained(shape: ModelShape) -> str:
    if not shape.num_vision_parameters:
        return "all parameters are trained"
    language = shape.num_parameters - shape.num_vision_parameters
    return (
        f"all of them are trained; with model.train_vision=false {count(language)}, the vision part of "
        f"{count(shape.num_vision_parameters)} left out"
    )
