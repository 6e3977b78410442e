"""Decoded images of a learner process: the vision tower's inputs by image hash, the most recently used ones kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch

from tinyr1v_ray.data.images import open_image
from tinyr1v_ray.data.processor import PromptProcessor
from tinyr1v_ray.models.family import ImageTokens, Tensors
from tinyr1v_ray.types import ImageRef

CACHE_BYTES = 256 * 2**20
"""Inputs kept in a process; a Qwen's image of 1024 x 1024 pixels takes 25 MB, one of the miniature 0.1 MB."""


class PixelCache:
    """Least-recently-used cache in front of the image processor."""

    def __init__(self, processor: PromptProcessor, max_bytes: int = CACHE_BYTES) -> None:
        self._processor = processor
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._inputs: OrderedDict[str, Tensors] = OrderedDict()
        self.num_decoded = 0

    def tokens(self, images: Iterable[ImageRef]) -> dict[str, ImageTokens]:
        """What each image becomes by hash, from its size alone; nothing is decoded."""
        return {image.sha256: self._processor.image_tokens(image.width_px, image.height_px) for image in images}

    def inputs(self, images: Sequence[ImageRef]) -> Tensors:
        """Of at least one image, in order; raises DataError when a file is not what its reference says."""
        alone = [self._of_one(image) for image in images]
        return {name: torch.cat([tensors[name] for tensors in alone]) for name in alone[0]}

    def _of_one(self, image: ImageRef) -> Tensors:
        tensors = self._inputs.pop(image.sha256, None)
        if tensors is None:
            tensors = self._processor.pixel_inputs([open_image(image)])
            self._num_bytes += _num_bytes(tensors)
            self.num_decoded += 1
        self._inputs[image.sha256] = tensors
        while self._num_bytes > self._max_bytes and len(self._inputs) > 1:
            _, oldest = self._inputs.popitem(last=False)
            self._num_bytes -= _num_bytes(oldest)
        return tensors


def _num_bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
