"""Real handwritten digits, split between the pools by writer.

The source is scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" set: 1,797 images of 8 x 8
pixels with 17 grey levels. The set lists its writers one after the other, so contiguous blocks keep the writers of
the three pools apart as well as the samples: what is read in evaluation was written by hands that neither warm-up
nor RL saw.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from tinyr1v_ray.miniature.tasks.pools import Pool

CELL_PX = 28
"""Side of one image token: patch 14 times merge 2."""

BLOCKS = {Pool.WARMUP: (0, 500), Pool.TRAIN: (500, 1290), Pool.EVALUATION: (1290, 1797)}
"""Half-open ranges of sample indices."""


@lru_cache(maxsize=1)
def _samples() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    bunch = load_digits()
    return np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target


@lru_cache(maxsize=32)
def indices_of(pool: Pool, digit: int) -> tuple[int, ...]:
    """Sample indices of `digit` that `pool` may use (between 45 and 85 of them)."""
    first, end = BLOCKS[pool]
    labels = _samples()[1]
    return tuple(index for index in range(first, end) if labels[index] == digit)


def draw_handwritten(digit: int, pool: Pool, rng: np.random.Generator) -> tuple[Image.Image, int]:
    """One cell with a handwritten digit, dark on white, and the index of the sample it came from.

    The 8 x 8 sample is enlarged to about 22 pixels with a random size, slant, turn and offset. In the
    warm-up this is also the augmentation.
    """
    choices = indices_of(pool, digit)
    index = choices[int(rng.integers(len(choices)))]
    size_px = 22 * (1 + rng.uniform(-0.15, 0.15))
    turn, slant = rng.uniform(-0.2, 0.2, size=2)
    offset_px = rng.uniform(-2.5, 2.5, size=2)
    scale = 8 / size_px
    # PIL wants the map from output to input pixels: centre, undo the offset, undo turn and slant, shrink.
    matrix = scale * np.array([[np.cos(turn), np.sin(turn) + slant], [-np.sin(turn), np.cos(turn)]])
    shift = 4 - matrix @ (CELL_PX / 2 + offset_px)
    coefficients = (matrix[0, 0], matrix[0, 1], shift[0], matrix[1, 0], matrix[1, 1], shift[1])
    ink = Image.fromarray(_samples()[0][index])
    cell = ink.transform((CELL_PX, CELL_PX), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return cell.point(lambda value: 255 - value), index
