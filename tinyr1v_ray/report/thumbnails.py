"""Images of items, small and inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tinyr1v_ray.data.images import ImageFacts, inspect_image, open_image
from tinyr1v_ray.types import ImageRef

LONGEST_PX = 360
TINY_PX = 88
_MAX_MEGAPIXELS = 64.0
_JPEG_QUALITY = 80
_SMALL_BYTES = 8192


@dataclass(frozen=True)
class Thumbnail:
    """An image as a `data:` address with the size it is shown at; tiny images are shown twice as large."""

    address: str
    width_px: int
    height_px: int
    tiny: str
    """The same for the heading of a folded entry."""


def stored_thumbnail(facts: ImageFacts, folder: Path) -> Thumbnail | None:
    """Of an image in an evaluation's store; None where it is gone or broken."""
    path = folder / facts.file_name
    try:
        reference = ImageRef(str(path), facts.sha256, facts.num_bytes, facts.width_px, facts.height_px, 0)
        return _thumbnail(open_image(reference))
    except (OSError, ValueError):
        return None


def file_thumbnail(path: Path) -> Thumbnail | None:
    """Of an image file; None where it is gone or broken."""
    try:
        content = path.read_bytes()
        facts = inspect_image(content, _MAX_MEGAPIXELS)
        reference = ImageRef(str(path), facts.sha256, facts.num_bytes, facts.width_px, facts.height_px, 0)
        return _thumbnail(open_image(reference))
    except (OSError, ValueError):
        return None


def _thumbnail(image: Image.Image) -> Thumbnail:
    image.thumbnail((LONGEST_PX, LONGEST_PX))
    factor = 2 if max(image.size) <= LONGEST_PX // 2 else 1
    tiny = image.copy()
    tiny.thumbnail((TINY_PX, TINY_PX))
    return Thumbnail(_address(image), factor * image.width, factor * image.height, _address(tiny))


def _address(image: Image.Image) -> str:
    """PNG, which keeps drawings sharp, unless it is large and JPEG is smaller."""
    png, jpeg = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", optimize=True)
    image.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    is_png = len(png.getvalue()) <= max(_SMALL_BYTES, len(jpeg.getvalue()))
    kind, content = ("png", png.getvalue()) if is_png else ("jpeg", jpeg.getvalue())
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
