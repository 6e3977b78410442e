"""Which engine is started: the one place that names an implementation."""

from __future__ import annotations

from pathlib import Path

from tinyr1v_ray.config.engine import EngineSettings
from tinyr1v_ray.rollout.engine import InferenceEngine


def start_engine(
    settings: EngineSettings, model_folder: Path, max_images: int, stop_ids: tuple[int, ...]
) -> InferenceEngine:
    """An engine in the process that calls this; heavy imports happen there.

    `max_images` is the largest number of images in a prompt, `stop_ids` are the token ids that end a completion.
    """
    from tinyr1v_ray.rollout.vllm.engine import VllmEngine

    return VllmEngine(settings, model_folder, max_images, stop_ids)
