"""JSON that may be damaged: what is not as it was written is an error of UNREADABLE, and all text can be written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tinyr1v_ray.errors import DataError, TinyR1VError

UNREADABLE = (
    *(TinyR1VError, OSError, ValueError, LookupError),
    *(TypeError, AttributeError, ArithmeticError, RecursionError),
)
"""What reading a damaged file can raise; whoever reads one says what is left out."""
_MOST_NUMBER = 1e100
"""No metric of a run is beyond it, and sums and squares of such numbers stay finite."""
_MOST_COUNT = 10**15
_LONGEST_REASON = 400
_ReadT = TypeVar("_ReadT")


def parse(content: bytes | str) -> Any:
    """The JSON tree, its texts as `visible` has them."""
    return _visible_tree(json.loads(content))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises errors of UNREADABLE."""
    return as_object(parse(path.read_text(encoding="utf-8")), path.name)


def read_or_remark(read: Callable[[], _ReadT], what: str) -> tuple[_ReadT | None, list[str]]:
    """What `read` gives; else None, and a sentence about `what` unless it is only that the file is not there.

    >>> read_or_remark(lambda: as_object([], "a.json"), "a.json")[1]
    ['a.json is left out, it cannot be read (a.json holds a list; it is a JSON object; restore it)']
    >>> read_or_remark(lambda: read_object(Path("/nowhere")), "a")
    (None, [])
    """
    try:
        return read(), []
    except (FileNotFoundError, NotADirectoryError):
        return None, []
    except UNREADABLE as error:
        return None, [f"{what} is left out, it cannot be read ({reason(error)})"]


def as_object(value: object, name: str) -> dict[str, Any]:
    """The value if it is a JSON object; `name` says what it is of."""
    if not isinstance(value, dict):
        raise DataError(f"{name} holds a {type(value).__name__}; it is a JSON object; restore it")
    return value


def texts(value: object, name: str) -> tuple[str, ...]:
    """The value if it is a list of texts."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{name} is no list of texts; it is one; restore it")
    return tuple(value)


def is_number(value: object) -> bool:
    """Whether this is a finite number that metrics can be made of.

    >>> [is_number(value) for value in (0.5, -3, True, "1", float("nan"), 10**400)]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST_NUMBER


def is_count(value: object) -> bool:
    """Whether this is a whole number from 0.

    >>> [is_count(value) for value in (0, 7, -1, 1.0, False)]
    [True, True, False, False, False]
    """
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNT


def visible(text: str) -> str:
    r"""Half a surrogate pair, which no file in UTF-8 can hold, as the six characters of its escape.

    >>> print(visible("a\ud800b"))
    a\ud800b
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _visible_tree(value: object) -> object:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [_visible_tree(item) for item in value]
    if isinstance(value, Mapping):
        return {visible(key): _visible_tree(item) for key, item in value.items()}
    return value


def reason(error: BaseException) -> str:
    """What was wrong, in one line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    said = visible(" ".join(str(error).split()))
    said = said if len(said) <= _LONGEST_REASON else f"{said[:_LONGEST_REASON]} …"
    return said if isinstance(error, TinyR1VError) else f"{type(error).__name__}: {said}"
