"""Images: what is refused before a run, what the store keeps, what opening guarantees."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tinyr1v_ray.data import images
from tinyr1v_ray.data.images import inspect_image, open_image, store_image
from tinyr1v_ray.errors import DataError
from tinyr1v_ray.types import ImageRef

Picture = Callable[..., bytes]
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]


def reference_to(content: bytes, folder: Path) -> ImageRef:
    facts = inspect_image(content, 64)
    path = store_image(folder, content, facts)
    return ImageRef(str(path), facts.sha256, facts.num_bytes, facts.width_px, facts.height_px, 1)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_stored_as_it_came_and_opens_as_rgb(format: str, picture: Picture, tmp_path: Path) -> None:
    content = picture(40, 30, format=format)
    reference = reference_to(content, tmp_path)
    assert Path(reference.path).read_bytes() == content
    assert Path(reference.path).stem == hashlib.sha256(content).hexdigest() == reference.sha256
    assert (reference.width_px, reference.height_px, reference.num_bytes) == (40, 30, len(content))
    opened = open_image(reference)
    assert opened.mode == "RGB" and opened.size == (40, 30)
    assert np.array_equal(opened, Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_truncated_images_are_found(format: str, share: float, picture: Picture) -> None:
    content = picture(120, 90, format=format)
    with pytest.raises(DataError, match="image"):
        inspect_image(content[: int(len(content) * share)], 64)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    format=st.sampled_from(FORMATS),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4),
    cut=st.floats(0, 1),
)
def test_damage_is_a_data_error_or_harmless(
    format: str, flips: list[tuple[float, int]], cut: float, picture: Picture, tmp_path: Path
) -> None:
    """Whatever is broken: either it is refused, or what was accepted can be opened later."""
    content = bytearray(picture(24, 18, format=format))
    for place, mask in flips:
        content[int(place * len(content))] ^= mask
    damaged = bytes(content[: max(1, int(len(content) * cut))])
    try:
        reference = reference_to(damaged, tmp_path)
    except DataError:
        return
    assert open_image(reference).size == (reference.width_px, reference.height_px)


def png_header(width: int, height: int) -> bytes:
    """A PNG of the given size without data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (8001, 8000), (2_000_000, 50)])
def test_decompression_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    with pytest.raises(DataError, match=r"megapixels|pixels"):
        inspect_image(png_header(width, height), 64)


def test_the_limit_is_the_settings(picture: Picture) -> None:
    inspect_image(picture(100, 100), 0.01)
    with pytest.raises(DataError, match=r"100 x 101 pixels; at most 0\.01 megapixels"):
        inspect_image(picture(100, 101), 0.01)


def test_strips_that_the_model_cannot_resize_are_refused(picture: Picture) -> None:
    inspect_image(picture(200, 1), 64)
    with pytest.raises(DataError, match="at most 200 times"):
        inspect_image(picture(201, 1), 64)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>", b"not an image"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="image"):
        inspect_image(content, 64)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((10, 10, 4), np.uint8)
    pixels[:5, :, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG")
    opened = np.asarray(open_image(reference_to(buffer.getvalue(), tmp_path)))
    assert (opened[:5] == 0).all() and (opened[5:] == 255).all()


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(format: str, tmp_path: Path) -> None:
    """A value v of 0..65535 is the grey v // 256 of 0..255: black, dark, middle, white."""
    values = np.array([[0, 255, 256, 4095, 32768, 65279, 65280, 65535]], np.uint16)
    opened = np.asarray(open_image(reference_to(saved(Image.fromarray(values), format), tmp_path)))
    assert opened[0].tolist() == [[grey] * 3 for grey in (0, 0, 1, 15, 128, 254, 255, 255)]


def test_big_endian_16_bits_and_turned_ones(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 2048, dtype=np.uint16).reshape(4, 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = np.asarray(open_image(reference_to(saved(Image.fromarray(values), "PNG", exif=exif), tmp_path)))
    assert np.array_equal(opened[:, :, 0], np.rot90(values >> 8, -1))
    big = Image.frombytes("I;16B", (8, 4), values.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(open_image(reference_to(saved(big, "TIFF"), tmp_path)))[:, :, 1], values >> 8)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_32_bits_are_refused_before_the_run(mode: str) -> None:
    with pytest.raises(DataError, match=rf"image has 32-bit pixels \(mode {mode}\); .*convert it to 8 or 16 bits"):
        inspect_image(saved(Image.new(mode, (4, 4), 1), "TIFF"), 64)
    with pytest.raises(DataError, match="32-bit"):
        inspect_image(b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5), 64)


def png(bits: int, kind: int, width: int, pixels: bytes, key: bytes) -> bytes:
    """A PNG of one row with a key colour, written by hand."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0))
    body = chunk(b"tRNS", key) + chunk(b"IDAT", zlib.compress(b"\0" + pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(8, 2, 2, bytes([9, 8, 7, 1, 2, 3]), struct.pack(">3H", 9, 8, 7)), [(255, 255, 255), (1, 2, 3)]),
        (
            png(16, 2, 2, struct.pack(">6H", 258, 772, 1286, 65535, 0, 32768), struct.pack(">3H", 258, 772, 1286)),
            [(255, 255, 255), (255, 0, 128)],
        ),
        (png(8, 0, 2, bytes([7, 200]), struct.pack(">H", 7)), [(255, 255, 255), (200, 200, 200)]),
        (png(1, 0, 2, bytes([0b01000000]), struct.pack(">H", 0)), [(255, 255, 255), (255, 255, 255)]),
        (png(16, 0, 2, struct.pack(">2H", 1000, 50000), struct.pack(">H", 1000)), [(255, 255, 255), (195, 195, 195)]),
    ],
)
def test_a_key_colour_is_laid_on_white(content: bytes, expected: list[tuple[int, ...]], tmp_path: Path) -> None:
    opened = open_image(reference_to(content, tmp_path))
    assert [opened.getpixel((x, 0)) for x in range(2)] == expected


def test_a_palette_with_transparency_and_cmyk(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    for transparency, first in ((0, (255, 255, 255)), (bytes([255, 255]), (10, 20, 30)), (bytes([0]), (255,) * 3)):
        opened = open_image(reference_to(saved(palette, "PNG", transparency=transparency), tmp_path))
        assert (opened.getpixel((0, 0)), opened.getpixel((1, 0))) == (first, (200, 100, 50))
    ink = open_image(reference_to(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100), tmp_path))
    red, green, blue = ink.getpixel((4, 4))
    assert red > 250 and green < 5 and blue < 5


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (saved(Image.new("RGB", (8, 8)), "AVIF"), "AVIF"),
        (saved(Image.new("RGB", (8, 8)), "JPEG2000"), "JPEG 2000"),
        (saved(Image.new("RGB", (8, 8)), "PDF"), "PDF"),
        (saved(Image.new("RGB", (16, 16)), "ICO"), "an icon"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\n<?xml version='1.0'?>\n<!-- drawn -->\n<svg width='1'></svg>", "SVG"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"not an image at all", r"of no known format \(begins with b'not an i'\)"),
    ],
)
def test_what_is_not_read_is_named(content: bytes, name: str) -> None:
    with pytest.raises(DataError, match=rf"image is {name}.*; PNG, JPEG, .* are read; convert or remove it") as caught:
        inspect_image(content, 64)
    assert "object at" not in str(caught.value)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_tags_are_applied_and_counted(format: str, tmp_path: Path) -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown by turning a quarter clockwise
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, exif=exif)
    reference = reference_to(buffer.getvalue(), tmp_path)
    opened = np.asarray(open_image(reference))
    assert (reference.width_px, reference.height_px) == (10, 40)
    assert opened.shape == (40, 10, 3)
    assert opened[:15].mean() > 200 and opened[25:].mean() < 50


def test_storing_twice_writes_once(picture: Picture, tmp_path: Path) -> None:
    content = picture()
    facts = inspect_image(content, 64)
    path = store_image(tmp_path, content, facts)
    written = path.stat().st_mtime_ns
    assert store_image(tmp_path, content, facts) == path and path.stat().st_mtime_ns == written
    path.write_bytes(content[:10])
    assert store_image(tmp_path, content, facts).read_bytes() == content


def test_a_jpeg_with_a_second_picture_is_read_as_its_first(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])
    reference = reference_to(buffer.getvalue(), tmp_path)
    assert reference.path.endswith(".jpg")
    red, _, blue = open_image(reference).getpixel((5, 5))
    assert red > 200 and blue < 50


def test_many_writers_at_once_leave_one_whole_file(picture: Picture, tmp_path: Path) -> None:
    content = picture(300, 300)
    facts = inspect_image(content, 64)
    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(lambda _: store_image(tmp_path, content, facts), range(64)))
    assert len(paths) == 1 and paths.pop().read_bytes() == content
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_content_that_changed_since_the_inspection_is_not_stored(picture: Picture, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has changed since"):
        store_image(tmp_path, picture(seed=2), inspect_image(picture(seed=1), 64))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_files_is_a_data_error(picture: Picture, tmp_path: Path) -> None:
    blocked = tmp_path / "store"
    blocked.write_text("a file")
    with pytest.raises(DataError, match="cannot be stored"):
        store_image(blocked, picture(), inspect_image(picture(), 64))


def test_opening_notices_files_that_are_gone_or_changed(picture: Picture, tmp_path: Path) -> None:
    content = picture(seed=5, format="BMP")
    reference = reference_to(content, tmp_path)
    images._verified_hashes.discard(reference.sha256)
    path = Path(reference.path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match="has changed"):
        open_image(reference)
    path.write_bytes(content + b"\0")
    with pytest.raises(DataError, match="has changed"):
        open_image(reference)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        open_image(reference)
