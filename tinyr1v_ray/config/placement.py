"""The settings of where engines and learner compute: on devices of their own, or on the same ones by turns."""

from __future__ import annotations

from typing import Literal

from tinyr1v_ray.config.base import Settings


class PlacementSettings(Settings):
    """Which devices engines and learner get."""

    colocate: bool = False
    """Each learner rank shares its device with an engine, or with one of the workers of an engine over several GPUs;
    they take turns. On GPUs it goes with `weights.backend: ipc`."""
    sleep_level: Literal[1, 2] = 1
    """What a sleeping engine on a GPU does with its weights: 1 keeps them in main memory, 2 drops them (new ones come
    anyway; buffers that some models compute at their start may be lost, which the canary tells). The KV cache goes."""
