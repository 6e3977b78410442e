"""Images as references: inspected before a run, stored once under their hash, opened by whoever needs the pixels.

The bytes are kept as they came. Opening turns them into upright RGB: orientation tags are applied, 16-bit grey is
scaled to 8 bits, and transparency (a channel or a key colour) is laid on white, so that engine and learner see the same
pixels whatever they do with alpha themselves. Pixels of 32 bits are refused, since nothing says what is white.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tinyr1v_ray.errors import DataError
from tinyr1v_ray.types import ImageRef

EXTENSIONS = {
    "PNG": "png",
    "JPEG": "jpg",
    "MPO": "jpg",  # what Pillow calls a JPEG file with a second picture behind the first
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "PPM": "ppm",
}
"""Formats that are read, and the endings they get. Formats that run other programs (EPS) are not among them."""

_READ_FORMATS = tuple(name for name in EXTENSIONS if name != "MPO")

_OTHER_FORMATS = {
    "AVIF": rb".{4}ftypavi[fs]",
    "HEIC": rb".{4}ftyp(hei|hev|mif|msf)",
    "SVG": rb"\s*(<\?xml.*?|<!--.*?|<!DOCTYPE\s+svg.*?)?<svg[\s/>]",
    "a web page": rb"\s*<(!DOCTYPE\s+)?html",
    "PDF": rb"%PDF",
    "PostScript": rb"%!PS|\xc5\xd0\xd3\xc6",
    "JPEG XL": rb"\xff\x0a|.{4}JXL ",
    "JPEG 2000": rb".{4}jP  |\xff\x4f\xff\x51",
    "a Photoshop file": rb"8BPS",
    "an icon": rb"\0\0[\1\2]\0",
    "a pointer of Git LFS and not the image": rb"version https://git-lfs",
}
"""How what is not read begins: a message that names it is worth more than one that does not know it."""
_NUM_BYTES_LOOKED_AT = 4096

MAX_ASPECT_RATIO = 200.0
"""The model's own resizing refuses images that are longer than this, relative to their short side."""

_ORIENTATION_TAG = 0x0112
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on broken files."""

_verified_hashes: set[str] = set()  # hashes of files that this process has compared with their content


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image whose bytes decode: enough to refer to it and to count its tokens."""

    sha256: str
    num_bytes: int
    width_px: int
    height_px: int
    extension: str

    @property
    def file_name(self) -> str:
        """Name in the store, in one of 256 sub-folders."""
        return f"{self.sha256[:2]}/{self.sha256}.{self.extension}"


def inspect_image(content: bytes, max_megapixels: float) -> ImageFacts:
    """Facts of an image; raises DataError with the reason when it could not be opened in the middle of a run.

    The header's size is judged first, so a decompression bomb is never decoded. Then all data is decoded (JPEG at an
    eighth of the size, which reads every bit and is cheap), since a truncated file has a sound header.
    """
    if not content:
        raise DataError("image is empty; an image file has content; restore the file")
    try:
        with Image.open(io.BytesIO(content), formats=_READ_FORMATS) as image:
            image_format = image.format or ""
            width_px, height_px = image.size
            check_size(width_px, height_px, max_megapixels)
            if image_format == "JPEG":
                image.draft("RGB", (max(1, width_px // 8), max(1, height_px // 8)))
            image.load()
            _check_depth(image)
            if image.getexif().get(_ORIENTATION_TAG) in (5, 6, 7, 8):  # after loading: TIFF is turned by then
                width_px, height_px = height_px, width_px
    except DataError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(_READ_FORMATS)
        raise DataError(f"image is {_other_format(content)}; {known} are read; convert or remove it") from error
    except _PILLOW_ERRORS as error:
        raise DataError(f"image cannot be decoded: {_one_line(error)}; restore or remove the file") from error
    return ImageFacts(hashlib.sha256(content).hexdigest(), len(content), width_px, height_px, EXTENSIONS[image_format])


def check_size(width_px: int, height_px: int, max_megapixels: float) -> None:
    """Raise DataError for an image that is too large to decode or too long to resize."""
    if width_px < 1 or height_px < 1:
        raise DataError(f"image is {width_px} x {height_px} pixels; it needs at least one; remove it")
    if width_px * height_px > max_megapixels * 1e6:
        raise DataError(
            f"image has {width_px} x {height_px} pixels; at most {max_megapixels:g} megapixels are decoded; "
            "shrink it or raise data.max_image_megapixels"
        )
    if max(width_px, height_px) > MAX_ASPECT_RATIO * min(width_px, height_px):
        raise DataError(
            f"image is {width_px} x {height_px} pixels; the long side is at most {MAX_ASPECT_RATIO:g} times the short "
            "one; crop it"
        )


def store_image(folder: Path, content: bytes, facts: ImageFacts) -> Path:
    """Path of the image in the store `folder`, written if it is not there yet.

    Several processes may store the same image at once: each writes a file of its own and renames it into place.
    Raises DataError when the content is no longer what the facts were learned from, or the folder takes no files.
    """
    path = folder / facts.file_name
    if path.is_file() and path.stat().st_size == facts.num_bytes:
        return path
    if hashlib.sha256(content).hexdigest() != facts.sha256:
        raise DataError(
            f"image with hash {facts.sha256[:12]} has changed since the data was looked at; data stays put during a "
            "run; start again"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"image cannot be stored at {path}: {error.strerror}; the folder takes files; free it"
        ) from error
    return path


def open_image(reference: ImageRef) -> Image.Image:
    """The referenced image as upright RGB, fully decoded.

    Raises DataError when the file is gone, has another size or content than the reference says, or does not decode.
    The size is compared each time and the hash when this process first opens the file.
    """
    path = Path(reference.path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"image {path} cannot be read: {error.strerror}; images stay put during a run; restore it"
        ) from error
    if len(content) != reference.num_bytes or not _has_hash(content, reference.sha256):
        raise DataError(
            f"image {path} has changed ({len(content)} bytes, expected {reference.num_bytes} of hash "
            f"{reference.sha256[:12]}); images are never rewritten; remove the file and start again"
        )
    try:
        with Image.open(io.BytesIO(content), formats=_READ_FORMATS) as image:
            upright = _to_rgb(ImageOps.exif_transpose(image))
    except _PILLOW_ERRORS as error:
        raise DataError(f"image {path} cannot be decoded: {_one_line(error)}; restore the file") from error
    if upright.size != (reference.width_px, reference.height_px):
        raise DataError(
            f"image {path} is {upright.size[0]} x {upright.size[1]} pixels, expected {reference.width_px} x "
            f"{reference.height_px}; images are never rewritten; remove the file and start again"
        )
    return upright


def _has_hash(content: bytes, sha256: str) -> bool:
    if sha256 in _verified_hashes:
        return True
    if hashlib.sha256(content).hexdigest() != sha256:
        return False
    _verified_hashes.add(sha256)
    return True


def _other_format(content: bytes) -> str:
    """What the bytes are, by how they begin."""
    head = content[:_NUM_BYTES_LOOKED_AT]
    for name, pattern in _OTHER_FORMATS.items():
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return name
    return f"of no known format (begins with {head[:8]!r})"


def _check_depth(image: Image.Image) -> None:
    """Refuse pixels of unknown range. Mode I is 32 bits, but 16 bits of a PGM file."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise DataError(
            f"image has 32-bit pixels (mode {image.mode}); their range is not known, at most 16 bits are read; convert "
            "it to 8 or 16 bits"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image), key)
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # of 16 bits, as the file has them
        image.info["transparency"] = tuple(part >> 8 for part in key)
    if not image.has_transparency_data:
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    paper.alpha_composite(layer)
    return paper.convert("RGB")


def _from_16_bits(values: np.ndarray, key: object) -> Image.Image:
    """Each value's high byte, which is how Pillow reads colours of 16 bits; the key colour is white."""
    grey = (values >> 8).astype(np.uint8)
    if isinstance(key, int):
        grey[values == key] = 255
    return Image.fromarray(grey).convert("RGB")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
