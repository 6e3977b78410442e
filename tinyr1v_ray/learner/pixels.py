"""Decoded images of a learner process: patches by image hash, the most recently used ones kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor

from tinyr1v_ray.data.images import open_image
from tinyr1v_ray.data.processor import PromptProcessor
from tinyr1v_ray.learner.prompt_tokens import Grid
from tinyr1v_ray.types import ImageRef

CACHE_BYTES = 256 * 2**20
"""Patches kept in a process; an image of 1024 x 1024 pixels takes 25 MB, one of the miniature 0.1 MB."""


class PixelCache:
    """Least-recently-used cache in front of the image processor."""

    def __init__(self, processor: PromptProcessor, max_bytes: int = CACHE_BYTES) -> None:
        self._processor = processor
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._patches: OrderedDict[str, Tensor] = OrderedDict()
        self.num_decoded = 0

    def grids(self, images: Iterable[ImageRef]) -> dict[str, Grid]:
        """Patch grid of each image by hash, from its size alone; nothing is decoded."""
        return {image.sha256: self._processor.grid_thw(image.width_px, image.height_px) for image in images}

    def patches(self, image: ImageRef) -> Tensor:
        """float32 [patches, 3 * 2 * 14 * 14]; raises DataError when the file is not what the reference says."""
        patches = self._patches.pop(image.sha256, None)
        if patches is None:
            patches = self._processor.pixel_inputs([open_image(image)]).pixel_values.to(torch.float32)
            self._num_bytes += patches.nbytes
            self.num_decoded += 1
        self._patches[image.sha256] = patches
        while self._num_bytes > self._max_bytes and len(self._patches) > 1:
            _, oldest = self._patches.popitem(last=False)
            self._num_bytes -= oldest.nbytes
        return patches
