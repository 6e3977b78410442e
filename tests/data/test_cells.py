"""Cells: what is text, what is an image, and what is refused without printing it whole."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyr1v_ray.data.cells import images_of, part_of, texts_of
from tinyr1v_ray.errors import DataError

Picture = Callable[..., bytes]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (np.float32("nan"), ""),
        (np.float32(0.1), "0.1"),
        (np.float32(16777216), "16777216"),
        (np.float16(0.3), "0.3"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e20, "100000000000000000000"),
        (-3.0, "-3"),
        (2.5e-9, "0.0000000025"),
        (10**25, "1" + "0" * 25),
        (True, "True"),
        (" 2021-05-07 00:00 ", "2021-05-07 00:00"),
        (datetime(2021, 5, 7), "2021-05-07"),
        (datetime(2021, 5, 7, 13, 5), "2021-05-07 13:05:00"),
        (date(2021, 5, 7), "2021-05-07"),
        ("\u4e2d".encode(), "\u4e2d"),
        (["only"], "only"),
        ([None, float("nan"), "one"], "one"),
    ],
)
def test_text_of_a_cell(cell: object, text: str) -> None:
    assert texts_of(cell) == ((text,) if text else ())


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_reads_back_as_itself_and_has_no_exponent(wide: float, narrow: float) -> None:
    (one,), (other,) = texts_of(wide), texts_of(np.float32(narrow))
    assert float(one) == wide and np.float32(other) == np.float32(narrow)
    assert set(one) | set(other) <= set("-.0123456789")


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ({"style": "rule", "ground_truth": "B"}, "a mapping of style, ground_truth"),
        ({"k" * 9 + str(n): n for n in range(10_000)}, "a mapping of k"),
        ([["a"], ["b"]], "a list of lists"),
        (b"\xff\xfe", "not UTF-8"),
        ("\ud83d", "surrogate"),
    ],
)
def test_what_is_no_text_is_refused_in_few_words(cell: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        texts_of(cell)
    assert len(str(caught.value)) < 400


def test_several_values_are_each_once() -> None:
    assert texts_of(["a", " b", "a", None, 2.0, "2"]) == ("a", "b", "2")


def test_parts_are_looked_up_at_any_depth() -> None:
    cell = {"a": [{"b": 1}, {"b": 2}, {}], "c": '{"d": {"e": [3]}}'}
    assert part_of(cell, ["a", "b"]) == [1, 2, None] and part_of(cell, ["c", "d", "e"]) == [3]
    assert part_of(cell, ["x", "y"]) is None and part_of(cell, []) is cell and part_of(None, ["a"]) is None
    for wrong in (7, "no JSON", "8"):
        with pytest.raises(DataError, match="looked up"):
            part_of(wrong, ["a"])


def test_every_way_to_hold_an_image(picture: Picture, tmp_path: Path) -> None:
    content = picture(80, 60)
    path = tmp_path / "a b%.png"
    path.write_bytes(content)
    packed = base64.b64encode(content).decode()
    lines = "\n".join(packed[start : start + 76] for start in range(0, len(packed), 76))
    uri = f"data:image/png;base64,{packed}"
    cells: list[object] = [
        *(content, str(path), path.name, f"file://{quote(str(path))}", f"file://localhost{quote(str(path))}"),
        *(f"FILE://{path.name}", f"file://./{quote(path.name)}"),
        *(packed, lines, packed.rstrip("="), base64.urlsafe_b64encode(content).decode(), uri, uri.replace("=", "%3D")),
        *({"bytes": content, "path": None}, {"bytes": None, "path": path.name}, {"bytes": packed}, {"url": uri}),
        *([content], [{"path": path.name}], f"data:image/png,{quote(content)}"),
    ]
    for cell in cells:
        assert list(images_of(cell, tmp_path)) == [content], cell
    assert list(images_of([content, None, path.name], tmp_path)) == [content, content]
    assert [list(images_of(cell, tmp_path)) for cell in (None, "", [], {"bytes": None, "path": None})] == [[]] * 4


def test_a_file_with_a_long_name_is_a_file(picture: Picture, tmp_path: Path) -> None:
    name = "a" * 100
    (tmp_path / name).write_bytes(picture())
    assert list(images_of(name, tmp_path)) == [picture()]


@pytest.mark.parametrize(
    "cell",
    [
        "data:image/png;base64," + "!" * 360_000,
        "x" * 360_000 + ".png",
        "folder/" + "y.z/" * 9_000,
        "https://example.org/" + "q" * 360_000,
        "s3://bucket/image.png",
        "a\0b.png",
        "file:///no/such/image.png",
        "no/such.png",
        7,
        {"image": "x"},
        [[1, 2], [3, 4]],
    ],
)
def test_what_cannot_be_read_is_one_short_line(cell: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image") as caught:
        list(images_of(cell, tmp_path))
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
