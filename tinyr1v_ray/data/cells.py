"""A cell as text, or as the bytes of images: what is meant is read, what is not understood is refused, never its repr.

The rules for text: null and NaN are nothing; a number is written out in the digits that its own width tells apart,
without exponent, and a whole one without fraction; a midnight is its date; a list is its several values; bytes are
UTF-8. For images: bytes, a path or `file://` address, base64, a data URI, a mapping with one of these, or a list.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from tinyr1v_ray.config.base import shortened
from tinyr1v_ray.errors import DataError

_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{64,}={0,2}\s*")
"""Long enough that no path is meant; images are longer. Both alphabets of base64."""
_HOST = re.compile(r"^localhost(?=/)")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SHOWN = 120
"""Characters of a cell that a message shows."""


def texts_of(value: Any) -> tuple[str, ...]:
    """Texts of a cell: none for nothing, several for a list, each once. Raises DataError for what has no text."""
    if isinstance(value, list | tuple):
        if any(isinstance(part, list | tuple) for part in value):
            raise DataError(f"a list of lists ({_shown(value)}); a cell is a value or a list of them; write it as text")
        return tuple(dict.fromkeys(text for part in value for text in texts_of(part)))
    text = _one_text(value)
    return (text,) if text else ()


def _one_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return _encodable(value.strip())
        case bool():
            return str(value)
        case float() | np.floating() | Decimal():
            return _number(value)
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case bytes():
            return _decoded(value).strip()
        case Mapping():
            names = ", ".join(map(str, value))
            raise DataError(
                f"a mapping of {shortened(names, _SHOWN)}; a cell is a value; name the part that is meant with a dot, "
                "such as data.answer_column=reward_model.ground_truth"
            )
        case _:
            return str(value)


def _number(value: float | np.floating[Any] | Decimal) -> str:
    if value != value:
        return ""
    if isinstance(value, Decimal):
        return str(int(value)) if value == value.to_integral_value() else format(value, "f")
    return np.format_float_positional(value, trim="-")


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"half of a surrogate pair at {error.start}; text is Unicode; repair it") from error
    return text


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"text that is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error


def part_of(value: Any, keys: Sequence[str]) -> Any:
    """What lies under `keys` in mappings one inside the other, also in JSON text; of a list, that of each element.

    None where a mapping lacks a key.
    """
    if not keys or value is None:
        return value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, list):
        return [part_of(each, keys) for each in value]
    if not isinstance(value, Mapping):
        raise DataError(f"nothing in which {keys[0]!r} could be looked up; a dotted column names parts; correct it")
    return part_of(value.get(keys[0]), keys[1:])


def images_of(value: Any, base_folder: Path) -> Iterator[bytes]:
    """Bytes of the images in a cell, in order; raises DataError when one cannot be read."""
    match value:
        case None | "" | {"bytes": None, "path": None}:
            return
        case bytes():
            yield value
        case str():
            yield _content(value, base_folder)
        case {"bytes": bytes() | str() as content}:
            yield from images_of(content, base_folder)
        case {"path": str() as name} | {"url": str() as name}:
            yield _content(name, base_folder)
        case list() | tuple():
            for part in value:
                yield from images_of(part, base_folder)
        case _:
            raise DataError(
                f"image cell holds a {type(value).__name__}; it is bytes, a path, base64 or a list of these; convert it"
            )


def _content(text: str, base_folder: Path) -> bytes:
    if text[:5].lower() == "data:":
        head, _, data = text.partition(",")
        return _from_base64(data) if head.rstrip().lower().endswith(";base64") else unquote_to_bytes(data)
    if text.lower().startswith("file://"):
        return _read(base_folder / _HOST.sub("", unquote(text[7:])), text)
    if _ADDRESS.match(text):
        raise DataError(f"image {_shown(text)} is an address; images are files or bytes in the data; download it")
    if _BASE64.fullmatch(text) and not _is_file(base_folder / text):
        return _from_base64(text)
    return _read(base_folder / text, text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long for a name
        return False


def _from_base64(text: str) -> bytes:
    packed = "".join(unquote(text).split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except binascii.Error as error:
        raise DataError(f"image of {len(text)} characters is not base64 ({error}); restore it") from error


def _read(path: Path, text: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"image file {_shown(text)} cannot be read: {reason}; it must exist; restore it") from error


def _shown(value: Any) -> str:
    return shortened(" ".join(str(value).split()), _SHOWN)
