"""Images of items, small and inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tinyr1v_ray.data.images import ImageFacts, inspect_image, open_image
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.types import ImageRef

LONGEST_PX = 360
_MAX_MEGAPIXELS = 64.0
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """An image as a `data:` address with the size it is shown at; tiny images are shown twice as large."""

    address: str
    width_px: int
    height_px: int


def stored_thumbnail(facts: ImageFacts, folder: Path) -> Thumbnail | None:
    """Of an image in an evaluation's store; None where it is gone or broken."""
    path = folder / facts.file_name
    try:
        reference = ImageRef(str(path), facts.sha256, facts.num_bytes, facts.width_px, facts.height_px, 0)
        return _thumbnail(open_image(reference))
    except DataError:
        return None


def file_thumbnail(path: Path) -> Thumbnail | None:
    """Of an image file; None where it is gone or broken."""
    try:
        content = path.read_bytes()
        facts = inspect_image(content, _MAX_MEGAPIXELS)
        reference = ImageRef(str(path), facts.sha256, facts.num_bytes, facts.width_px, facts.height_px, 0)
        return _thumbnail(open_image(reference))
    except (OSError, DataError):
        return None


def _thumbnail(image: Image.Image) -> Thumbnail:
    image.thumbnail((LONGEST_PX, LONGEST_PX))
    png, jpeg = io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", optimize=True)
    image.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    kind, content = min(("png", png.getvalue()), ("jpeg", jpeg.getvalue()), key=lambda pair: len(pair[1]))
    if kind == "jpeg" and len(png.getvalue()) < 8192:  # small drawings stay sharp
        kind, content = "png", png.getvalue()
    factor = 2 if max(image.size) <= LONGEST_PX // 2 else 1
    address = f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
    return Thumbnail(address, factor * image.width, factor * image.height)
